"""Training learns, repeats itself, goes on where it stopped, and ends in a checkpoint that loads."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cmath_stream.checkpoint import ModalitySpec, load, save
from cmath_stream.training.calibration import describe
from cmath_stream.training.data import MELD7, UNLABELLED, Example, synthetic
from cmath_stream.training.evaluate import answer
from cmath_stream.training.learning import one_cycle
from cmath_stream.training.losses import LossWeights
from cmath_stream.training.recipe import KINDS, Recipe, Schedule, model_config, read_kind, read_recipe
from cmath_stream.training.train import Fitted, class_weights, drop_modalities, fit
from realtime.errors import SettingsError

DIMS = [("text", 10), ("audio", 8)]
RECIPE = Recipe(
    name="tiny",
    model={"width": 16, "heads": 2, "window": 4, "kernel": 1, "convolutions": 1, "dropout": 0.1},
    loss=LossWeights(temperature=1.0),
    schedule=Schedule(epochs=6, batch=8, learning_rate=1e-2, ema=0.9),
)
DIALOGUES = synthetic(80, [10, 8])
TRAIN, VALIDATION = DIALOGUES[:60], DIALOGUES[60:]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Tiny tensors: more threads only wait for each other."""
    torch.set_num_threads(1)


def run(folder: Path, recipe: Recipe = RECIPE, resume: bool = False) -> Fitted:
    return fit(recipe, DIMS, lambda epoch: TRAIN, VALIDATION, folder, resume=resume, progress=False)


def same(a: Fitted, b: Fitted) -> bool:
    weights = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return a.history == b.history and all(torch.equal(x, y) for x, y in weights)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """One uninterrupted run of the recipe."""
    return run(tmp_path_factory.mktemp("whole"))


def test_it_learns_and_keeps_the_best_epoch(fitted: Fitted) -> None:
    assert max(fitted.history) > 0.4  # chance is .14
    assert fitted.history[fitted.best_epoch] == max(fitted.history)
    assert not fitted.model.training


def test_the_same_seed_gives_the_same_bits(fitted: Fitted, tmp_path: Path) -> None:
    assert same(run(tmp_path), fitted)


class Interrupted(Exception):
    pass


def test_a_resumed_run_repeats_the_uninterrupted_one(fitted: Fitted, tmp_path: Path) -> None:
    def until(epoch: int) -> list[Example]:
        if epoch == 2:
            raise Interrupted
        return TRAIN

    with pytest.raises(Interrupted):
        fit(RECIPE, DIMS, until, VALIDATION, tmp_path, progress=False)
    resumed = run(tmp_path, resume=True)
    assert same(resumed, fitted)
    assert same(run(tmp_path, resume=True), fitted)  # a finished run is only read
    with pytest.raises(SettingsError, match="another recipe"):
        run(tmp_path, replace(RECIPE, version="2"), resume=True)


def test_a_judge_that_is_no_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="smell"):
        run(tmp_path, replace(RECIPE, judged_by=("text", "smell")))


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"ema": 0.0}, {"class_weights": 0.5}, {"crop": 1.0}, {"absent": 0.9}]
)
def test_each_switch_of_the_schedule_changes_the_run(tmp_path: Path, change: dict[str, Any]) -> None:
    short = replace(RECIPE, schedule=replace(RECIPE.schedule, epochs=1))
    switched = replace(short, schedule=replace(short.schedule, **change))
    assert not same(run(tmp_path / "a", short), run(tmp_path / "b", switched))


def test_a_fitted_model_becomes_a_calibrated_checkpoint(fitted: Fitted, tmp_path: Path) -> None:
    specs = [ModalitySpec(name, "made-up", "1", dim) for name, dim in DIMS]
    described = describe(
        RECIPE, fitted.model, specs, partial(answer, fitted.model, VALIDATION),
        label_set="meld7", labels=MELD7, judged_on="made up", best_epoch=fitted.best_epoch,
    )  # fmt: skip
    save(tmp_path / "tiny", fitted.model, described)
    meta = load(tmp_path / "tiny").meta
    assert meta.labels == MELD7
    assert set(meta.temperatures) == {"text", "audio", "text+audio"}
    assert 0.0 < meta.abstain_below < 1.0
    assert meta.reliability == {m: meta.validation["patterns"][m]["accuracy"] for m in ("text", "audio")}
    figures = meta.validation["patterns"]["text+audio"]
    assert figures["weighted_f1"] > figures["macro_f1"] * 0.8 > 0.3
    assert figures["ece_95"][0] <= figures["ece_95"][1]


def test_no_row_loses_its_last_modality() -> None:
    rng = np.random.default_rng(0)
    presence = rng.random((200, 9, 3)) < 0.6
    kept = drop_modalities(presence, 0.3, rng)
    assert not (kept & ~presence).any()
    assert (kept.any(axis=2) == presence.any(axis=2)).all()
    full = drop_modalities(np.ones((400, 9, 3), bool), 0.3, rng)
    assert 0.2 < 1.0 - full.mean() < 0.3
    throughout = (full == full[:, :1]).all(axis=(1, 2)).mean()
    assert 0.4 < throughout < 0.6
    assert drop_modalities(presence, 0.0, rng).tolist() == presence.tolist()


def test_class_weights_lift_the_rare_and_keep_the_mean() -> None:
    label = np.array([0] * 90 + [1] * 10 + [UNLABELLED] * 5)
    example = Example(
        (np.zeros((105, 1), np.float32),), np.ones((105, 1), bool), np.zeros(105, np.int64), label
    )
    weights = class_weights([example], 2, 1.0)
    assert weights is not None
    assert weights[1] / weights[0] == pytest.approx(9.0)
    assert 0.9 * weights[0] + 0.1 * weights[1] == pytest.approx(1.0)
    assert class_weights([example], 2, 0.0) is None


def test_one_cycle_rises_then_falls_to_nothing() -> None:
    rates = [one_cycle(done, 0.25) for done in np.linspace(0, 1, 101)]
    assert np.argmax(rates) == 25
    assert rates[0] < 0.1
    assert rates[25] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.0)


CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("train-*.toml")), ids=lambda path: path.stem)
def test_every_recipe_says_its_kind(path: Path) -> None:
    assert read_kind(path) in KINDS


@pytest.mark.parametrize("name", ["live", "words", "acted"])
def test_the_shipped_recipes_read_and_stream(name: str) -> None:
    recipe = read_recipe(CONFIGS / f"train-{name}.toml")
    config = model_config(recipe, DIMS)
    assert config.causal and config.window is not None  # bounded: it can run live
    assert recipe.licence and recipe.data_sources


def test_training_and_judging_share_no_actor_and_no_face() -> None:
    live = read_recipe(CONFIGS / "train-live.toml").live
    assert live.train.actors and live.validation.actors
    assert not set(live.train.actors) & set(live.validation.actors)
    assert live.train.pictures[1] <= live.validation.pictures[0]
    with pytest.raises(SettingsError, match="kind"):
        read_kind(CONFIGS / "live.toml")


def test_a_start_is_taken_where_the_names_fit(tmp_path: Path) -> None:
    once = run(tmp_path)
    begun = replace(RECIPE, schedule=replace(RECIPE.schedule, epochs=1, learning_rate=1e-9))
    initial = {key: value for key, value in once.model.state_dict().items() if key.startswith("head.")}
    model = fit(begun, DIMS, lambda epoch: TRAIN, VALIDATION, None, initial=initial, progress=False).model
    for key, value in initial.items():
        torch.testing.assert_close(model.state_dict()[key], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        "name = ",
        'title = "x"',
        'name = "x"\nspeed = 9',
        'name = "x"\n[model]\nwitdh = 9',
        'name = "x"\n[model]\nheads = 5',
        'name = "x"\n[schedule]\nepoch = 9',
        'name = "x"\n[loss]\nkl = 9',
        'name = "x"\n[words]\ntest = "y"',
    ],
)
def test_an_unknown_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"wrong\.toml"):
        read_recipe(path)
    with pytest.raises(SettingsError):
        read_recipe(tmp_path / "none.toml")
