"""The live checkpoint: grafted conversations become a calibrated fusion, judged on a set named by a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmath_stream.checkpoint import load
from cmath_stream.checkpoint_files import shipped
from cmath_stream.training.live import judge_live, train_live
from cmath_stream.training.recipe import GraftedData, LiveData, Recipe, Schedule
from realtime.errors import SettingsError

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
GRAFTED = GraftedData(dialogues=("talk.jsonl",), voices="voices.npz", actors=(1, 2), faces="faces.npz")
MODEL = {"width": 16, "heads": 2, "window": 4, "kernel": 1, "convolutions": 1, "fusion": "experts"}
RECIPE = Recipe(
    name="tiny",
    model=MODEL,
    schedule=Schedule(epochs=1, batch=4),
    live=LiveData(train=GRAFTED, validation=replace(GRAFTED, actors=(3,))),
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dialogues, voices of three actors, and faces, each with all seven emotions."""
    made = tmp_path_factory.mktemp("grafted")
    rng = np.random.default_rng(0)
    lines = [
        {"speaker": "ab"[n % 2], "text": f"I feel {emotion}.", "emotion": emotion}
        for n, emotion in enumerate(EMOTIONS)
    ]
    talks = [json.dumps({"dialogue": str(d), "utterances": lines}) for d in range(6)]
    (made / "talk.jsonl").write_text("\n".join(talks))
    emotion, actor = np.tile(np.arange(8), 3), np.repeat([1, 2, 3], 8)
    np.savez(
        made / "voices.npz",
        key=np.arange(24).astype(str), emotion=emotion, actor=actor,
        features=rng.normal(size=(4, 24, 8)).astype(np.float32),
    )  # fmt: skip
    votes = np.zeros((70, 10), np.uint8)
    votes[np.arange(70), np.arange(70) % 7] = 9
    np.savez(made / "faces.npz", image=rng.integers(0, 255, (70, 48, 48), dtype=np.uint8), votes=votes)
    return made


def test_grafted_conversations_become_a_checkpoint_that_is_judged(folder: Path, tmp_path: Path) -> None:
    path = train_live(RECIPE, folder, tmp_path, made=folder, cache=tmp_path, progress=False)
    checkpoint = load(path)
    assert [spec.modality for spec in checkpoint.meta.modalities] == ["text", "audio", "visual"]
    assert [spec.running for spec in checkpoint.meta.modalities] == [False, True, False]
    assert set(checkpoint.meta.reliability) == {"text", "audio", "visual"}
    assert checkpoint.everybody()["audio"].shape == (8,)
    spec = folder / "set.toml"
    spec.write_text('dialogues = ["talk.jsonl"]\nvoices = "voices.npz"\nfaces = "faces.npz"\n')
    found = judge_live(checkpoint, spec, folder, tmp_path)
    assert len(found.by_pattern) == 7
    assert {odd: len(answers.label) for odd, answers in found.contradicted.items()} == {
        "text": 42, "audio": 42, "visual": 42,
    }  # fmt: skip
    spec.write_text("disagre = 0.1")
    with pytest.raises(SettingsError, match="disagre"):
        judge_live(checkpoint, spec, folder, tmp_path)


def test_a_checkpoint_over_words_is_where_it_begins(folder: Path, tmp_path: Path) -> None:
    words = load(shipped("words"))
    shape = {**MODEL, "width": words.meta.config.width, "heads": words.meta.config.heads}
    begun = replace(
        RECIPE,
        model=shape,
        schedule=Schedule(epochs=1, learning_rate=1e-9),
        live=replace(RECIPE.live, begin_with="words"),
    )
    model = load(train_live(begun, folder, tmp_path, made=folder, cache=tmp_path, progress=False)).model
    for name in ("head.1.weight", "compressors.0.convs.0.conv.weight", "experts.0.mean.weight"):
        torch.testing.assert_close(
            model.state_dict()[name], words.model.state_dict()[name], atol=1e-5, rtol=0
        )
    other = replace(begun, live=replace(begun.live, adapter="none"))
    with pytest.raises(SettingsError, match="does not read"):
        train_live(other, folder, tmp_path / "other", made=folder, cache=tmp_path, progress=False)
