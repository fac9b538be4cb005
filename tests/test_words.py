"""The adapter and its CMATH learn together, repeat themselves, and end in files that belong together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmath_stream.checkpoint import load
from cmath_stream.checkpoint_files import CheckpointError
from cmath_stream.training.recipe import Recipe, Schedule, WordsData
from cmath_stream.training.words import ADAPTED, judge_words, train_words
from workers import text_adapter
from workers.text_encoder import DEFAULT_ENCODER, load_encoder
from workers.training.lora import LearningEncoder, factors

SAID = {"joy": ["Yay, we won!", "I am so happy!"], "anger": ["Damn it!", "I hate you!"]}
RECIPE = Recipe(
    name="tiny",
    kind="words",
    model={"width": 16, "heads": 2, "window": 4, "kernel": 1, "convolutions": 1, "fusion": "experts"},
    schedule=Schedule(epochs=2, batch=4, learning_rate=1e-2, crop=0.5),
    settle=Schedule(epochs=6, batch=4, learning_rate=1e-2),
    words=WordsData(train=("train.jsonl",), validation="dev.jsonl", rank=2, layers=1),
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for name, dialogues in (("train", 8), ("dev", 3)):
        lines = []
        for number in range(dialogues):
            emotions = rng.choice(list(SAID), size=3)
            rows = [
                {"speaker": "ab"[n % 2], "text": str(rng.choice(SAID[each])), "emotion": str(each)}
                for n, each in enumerate(emotions)
            ]
            lines.append(json.dumps({"dialogue": str(number), "utterances": rows}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def test_an_encoder_that_learned_nothing_embeds_as_before() -> None:
    encoder = load_encoder(DEFAULT_ENCODER, "cpu")
    texts = ["No.", "This is a rather longer line than the first.", "Well, hello there!"]
    learning = LearningEncoder(encoder, rank=2, layers=2, dropout=0.5).eval()
    with torch.inference_mode():
        rows = learning(texts).numpy()
    np.testing.assert_allclose(rows, encoder.encode(texts, normalize_embeddings=True), atol=1e-5)
    learned = {name for name, each in learning.named_parameters() if each.requires_grad}
    assert len(learned) == len(learning.learned()) == 2 * 2 * 6  # up and down, of six layers of two blocks


def test_they_learn_together_and_what_is_written_gives_the_same_answers(corpus: Path, tmp_path: Path) -> None:
    path = train_words(RECIPE, corpus, tmp_path, progress=False)
    checkpoint, (meta, learned) = load(path), text_adapter.read(tmp_path / "text")
    assert checkpoint.meta.modalities[0].name == meta.name == ADAPTED
    assert any(np.abs(value).max() > 0 for name, value in learned.items() if name.endswith("up"))
    assert 0.0 < checkpoint.meta.reliability["text"] <= 1.0
    again = train_words(RECIPE, corpus, tmp_path / "again", progress=False)
    assert again.read_bytes() == path.read_bytes()
    longer = replace(RECIPE, schedule=replace(RECIPE.schedule, epochs=2))
    assert (
        train_words(longer, corpus, tmp_path, resume=True, progress=False).read_bytes() == path.read_bytes()
    )


def test_words_of_another_adapter_are_refused(corpus: Path, tmp_path: Path) -> None:
    other = replace(RECIPE, version="none-such", schedule=replace(RECIPE.schedule, epochs=1))
    path = train_words(other, corpus, tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="none-such"):
        judge_words(load(path), corpus / "dev.jsonl", tmp_path / "cache")


def test_factors_are_what_the_adapter_stores() -> None:
    learning = LearningEncoder(load_encoder(DEFAULT_ENCODER, "cpu"), rank=2, layers=1, dropout=0.0)
    assert {value.dtype for value in factors(learning.learned()).values()} == {np.dtype(np.float32)}
