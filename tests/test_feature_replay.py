"""Features that others computed, through the fusion alone: what `eval` says of a file, as events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cmath_stream import answers, events
from cmath_stream.checkpoint import Checkpoint, CheckpointMeta, load, save
from cmath_stream.cli import app
from cmath_stream.model import CMATH, CMATHConfig
from cmath_stream.training.evaluate import metrics
from cmath_stream.training.feature_recipe import FeatureRecipe
from cmath_stream.training.feature_sets import read_feature_set
from cmath_stream.training.feature_training import answer_features, specs
from tests.feature_sets import write_community, write_npz

VALID = jsonschema.Draft202012Validator(events.schema(), format_checker=jsonschema.FormatChecker())


def checkpoint_for(path: Path, folder: Path, *, causal: bool = True) -> Checkpoint:
    """A random model for the features of a file; its window holds a whole dialogue."""
    whole = read_feature_set(path)
    torch.manual_seed(0)
    config = CMATHConfig(
        dims=whole.modalities, classes=len(whole.labels), width=16, heads=2, window=16, causal=causal,
        convolutions=1, kernel=1,
    )  # fmt: skip
    meta = CheckpointMeta(
        name="own", version="1", label_set=whole.label_set, labels=whole.labels,
        modalities=specs(whole, FeatureRecipe(name="own", features=str(path)), None),
        config=config, temperatures={}, abstain_below=0.0, reliability={}, licence="Apache-2.0",
        data_sources=(), validation={},
    )  # fmt: skip
    save(folder / "own.safetensors", CMATH(config), meta)
    return load(folder / "own.safetensors")


def replay(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["replay", *map(str, arguments)])


Write = Callable[[Path], Path]


@pytest.mark.parametrize(
    "write",
    [lambda folder: write_community(folder / "x.pkl", "meld", 4), lambda folder: write_npz(folder / "x.npz")],
    ids=["pickle", "npz"],
)
def test_events_say_what_eval_finds(tmp_path: Path, write: Write) -> None:
    path, out = write(tmp_path), tmp_path / "events.jsonl"
    checkpoint = checkpoint_for(path, tmp_path)
    result = replay(path, "--checkpoint", tmp_path / "own.json", "--gold", path, "--out", out)
    assert result.exit_code == 0, result.output
    for line in out.read_text("utf-8").splitlines():
        VALID.validate(json.loads(line))
    whole = read_feature_set(path)
    judged = answer_features(checkpoint, whole)
    expected = checkpoint.probabilities(judged.logits, judged.presence)
    said = answers.read(out)
    np.testing.assert_allclose(np.array([each.probabilities for each in said]), expected, atol=1e-4)
    figures, truth = json.loads(result.stdout.splitlines()[-1]), metrics(expected, judged.label)
    assert figures["n"] == truth.utterances and figures["missed"] == 0
    assert figures["accuracy"] == round(truth.accuracy, 4)
    assert figures["weighted_f1"] == round(truth.weighted_f1, 4)
    rooms = list(dict.fromkeys(each.room for each in said))
    assert rooms == [each.name for each in whole.conversations]
    first = whole.conversations[0]
    assert [each.text for each in said if each.room == first.name] == list(first.words or ())
    assert {each.participant_id for each in said if each.room == first.name} == {
        f"speaker-{n + 1}" for n in first.example.speaker
    }


def test_what_is_absent_in_the_file_is_absent_in_the_event(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", 3)
    columns = dict(np.load(path))
    first = (columns["dialogue"] == "v000") & (columns["utterance"] == 1)
    columns["audio"][first] = 0.0
    for name in ("text", "audio", "visual"):
        columns[name][(columns["dialogue"] == "v001") & (columns["utterance"] == 2)] = np.nan
    np.savez(path, **columns)
    checkpoint_for(path, tmp_path)
    result = replay(path, "--checkpoint", tmp_path / "own.json")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    (event,) = [e for e in told if e["type"] == "emotion.utterance" and e["index"] == 0][:1]
    assert event["modalities"]["audio"] == {"used": False, "reason": "not_in_file", "lost_ms": 0}
    assert event["modalities"]["text"]["used"] and event["modalities"]["visual"]["used"]
    (dropped,) = [e for e in told if e["type"] == "utterance.dropped"]
    assert dropped["reason"] == "no_modality"


def test_a_model_that_looked_ahead_is_asked_without_and_that_is_said(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", 3)
    checkpoint_for(path, tmp_path, causal=False)
    result = replay(path, "--checkpoint", tmp_path / "own.json")
    assert result.exit_code == 0 and "note: own was trained to see later utterances too" in result.stderr


def test_a_checkpoint_of_other_features_is_refused_by_name(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", 3)
    result = replay(path)
    assert "checkpoint 'live-small' was not trained on a set's audio features" in str(result.exception)
    (tmp_path / "no.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert "refused: it asks for os.system" in str(replay(tmp_path / "no.pkl").exception)
