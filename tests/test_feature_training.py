"""A feature set becomes a checkpoint, a table by cross-validation and a judgement, and nothing leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmath_stream.checkpoint import ModalitySpec, load
from cmath_stream.training import feature_training
from cmath_stream.training.data import DataError
from cmath_stream.training.evaluate import metrics
from cmath_stream.training.feature_recipe import FeatureRecipe, varied
from cmath_stream.training.feature_sets import FeatureSet, read_feature_set
from cmath_stream.training.feature_training import (
    OutOfFold,
    Variant,
    WordEncoder,
    answer_features,
    cross_validate,
    parts,
    read_as_trained,
    train_features,
)
from cmath_stream.training.train import Fitted
from realtime.errors import SettingsError
from tests.feature_sets import embed, write_community, write_npz

WORDS = WordEncoder(ModalitySpec("text", "last-word", "1", 7), embed)
RECIPE = varied(
    FeatureRecipe(name="tiny", features="mosi/train.npz", text="words", folds=2, seeds=1),
    {
        "model": {"width": 8, "heads": 2, "convolutions": 1, "kernel": 1, "dropout": 0.1, "causal": False},
        "schedule": {"epochs": 6, "batch": 2, "learning_rate": 1e-2},
    },
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Tiny tensors: more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with training and unseen dialogues."""
    folder = tmp_path_factory.mktemp("data")
    write_npz(folder / "mosi" / "train.npz", 30)
    write_npz(folder / "mosi" / "test.npz", 15)
    return folder


@pytest.fixture(scope="module")
def whole(data: Path) -> FeatureSet:
    return read_feature_set(data / "mosi" / "train.npz", text="words", embed=embed)


def accuracy(out: OutOfFold) -> float:
    return metrics(out.probabilities[0], out.label).accuracy


def test_a_recipe_becomes_a_checkpoint_that_is_judged(data: Path, tmp_path: Path) -> None:
    path = train_features(RECIPE, data, tmp_path, WORDS, progress=False)
    checkpoint = load(path)
    meta = checkpoint.meta
    assert (meta.label_set, meta.labels) == ("mosi2", ("negative", "positive"))
    assert meta.modalities == (WORDS.spec, ModalitySpec("audio", "mosi-audio", "provided", 4))
    assert set(meta.temperatures) == {"text", "audio", "text+audio"}
    assert 0.5 <= meta.abstain_below < 1.0
    unseen = read_feature_set(data / "mosi" / "test.npz", text="words", embed=embed)
    found = answer_features(checkpoint, unseen)
    assert (found.logits.argmax(axis=1) == found.label).mean() > 0.7
    assert len(found.label) == len(unseen.groups)
    assert not np.allclose(answer_features(checkpoint, unseen, keep=[0]).logits, found.logits)
    again = answer_features(checkpoint, read_as_trained(checkpoint, data / "mosi" / "test.npz", WORDS))
    np.testing.assert_array_equal(again.logits, found.logits)
    with pytest.raises(DataError, match="wants words by last-word"):
        read_as_trained(checkpoint, data / "mosi" / "test.npz", None)
    with pytest.raises(DataError, match="features"):
        answer_features(checkpoint, read_feature_set(data / "mosi" / "test.npz"))
    with pytest.raises(DataError, match="labels"):
        answer_features(checkpoint, replace(unseen, labels=("bad", "good")))


def test_provided_features_are_named_after_their_set(data: Path, tmp_path: Path) -> None:
    short = varied(RECIPE, {"schedule": {"epochs": 1}})
    path = train_features(
        replace(short, text="provided", modalities=("audio", "visual"), label_set="polarity"),
        data,
        tmp_path,
        None,
        progress=False,
    )
    meta = load(path).meta
    read = read_as_trained(load(path), data / "mosi" / "test.npz", None)
    assert len(answer_features(load(path), read).label) == len(read.groups)
    assert [spec.name for spec in meta.modalities] == ["mosi-audio", "mosi-visual"]
    assert meta.label_set == "polarity"


def test_the_makers_test_part_is_left_alone(tmp_path: Path) -> None:
    iemocap = read_feature_set(write_community(tmp_path / "i.pkl", "iemocap", 1))
    learning, judged = parts(iemocap, RECIPE)
    assert iemocap.train is not None
    assert {each.name for each in learning.conversations} == set(iemocap.train)
    assert {each.name for each in judged.conversations} == set(iemocap.validation or ())
    meld = read_feature_set(write_community(tmp_path / "m.pkl", "meld", 1))
    learning, judged = parts(meld, RECIPE)
    assert meld.train is not None
    seen = [each.name for part in (learning, judged) for each in part.conversations]
    assert sorted(seen) == sorted(meld.train)
    out = cross_validate(RECIPE, meld, Variant("majority"))
    assert set(out.group) == set(meld.train)
    assert out.probabilities.shape == (1, len(out.label), 7)


def test_models_beat_chance_and_answer_every_utterance(whole: FeatureSet) -> None:
    said: list[tuple[int, int]] = []
    out = cross_validate(RECIPE, whole, progress=lambda done, of: said.append((done, of)))
    assert accuracy(out) > 0.7
    assert out.group == whole.groups
    np.testing.assert_allclose(out.probabilities.sum(axis=2), 1.0)
    assert said == [(1, 2), (2, 2)]
    mlp = cross_validate(RECIPE, whole, Variant("concat_mlp"))
    assert accuracy(mlp) > 0.7
    chance = cross_validate(RECIPE, whole, Variant("majority"))
    assert accuracy(chance) < 0.65
    assert chance.label.tolist() == out.label.tolist()


def test_no_model_sees_what_it_is_asked(whole: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[tuple[set[str], set[str]]] = []
    real = feature_training.fit_part

    def spy(
        recipe: FeatureRecipe, learning: FeatureSet, judged: FeatureSet, seed: int, folder: Path
    ) -> Fitted:
        names = [{each.name for each in part.conversations} for part in (learning, judged)]
        fitted.append((names[0], names[1]))
        return real(recipe, learning, judged, seed, folder)

    monkeypatch.setattr(feature_training, "fit_part", spy)
    cross_validate(varied(RECIPE, {"schedule": {"epochs": 1}}), whole)
    everyone = set(whole.groups)
    asked = [everyone - learning - judged for learning, judged in fitted]
    assert all(not learning & judged and judged for learning, judged in fitted)
    assert asked[0] | asked[1] == everyone
    assert not asked[0] & asked[1]


def test_a_variant_changes_keys_and_modalities(whole: FeatureSet) -> None:
    short = varied(RECIPE, {"schedule": {"epochs": 1}})
    plain = cross_validate(short, whole)
    again = cross_validate(short, whole)
    np.testing.assert_array_equal(plain.probabilities, again.probabilities)
    sound = cross_validate(short, whole, Variant(modalities=("audio",)))
    experts = cross_validate(short, whole, Variant(changes={"model": {"fusion": "experts"}}))
    centred = cross_validate(short, whole, Variant(changes={"model": {"centres": ["text"]}}))
    assert not np.array_equal(plain.probabilities, centred.probabilities)
    with pytest.raises(SettingsError, match="centres"):
        cross_validate(short, whole, Variant("cmath", ("audio",), {"model": {"centres": ["text"]}}))
    with pytest.raises(SettingsError, match="witdh"):
        cross_validate(short, whole, Variant(changes={"model": {"witdh": 8}}))
    seeds = cross_validate(replace(short, seeds=2), whole)
    assert not np.array_equal(plain.probabilities, sound.probabilities)
    assert not np.array_equal(plain.probabilities, experts.probabilities)
    np.testing.assert_array_equal(seeds.probabilities[0], plain.probabilities[0])
    assert not np.array_equal(seeds.probabilities[1], plain.probabilities[0])


def test_an_utterance_with_nothing_present_is_answered_with_the_shares(whole: FeatureSet) -> None:
    first = whole.conversations[0]
    presence = first.example.presence.copy()
    presence[0] = False
    silent = replace(first, example=replace(first.example, presence=presence))
    out = cross_validate(
        varied(RECIPE, {"schedule": {"epochs": 1}}),
        replace(whole, conversations=(silent, *whole.conversations[1:])),
    )
    assert len(out.label) == len(whole.groups)
    assert out.probabilities[0, 0].min() > 0.35  # about as many of each


def test_one_dialogue_cannot_be_split(whole: FeatureSet) -> None:
    with pytest.raises(DataError, match="hold out"):
        parts(whole.part(["v000"]), RECIPE)
