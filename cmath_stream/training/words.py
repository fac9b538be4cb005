"""Words alone: the text adapter and a CMATH that reads them in context learn together.

The encoder sees single utterances, so an utterance is embedded once and for ever; what was said before it
reaches it through CMATH's attention over the window. Trained together, the embedding keeps what the window
needs. Then the encoder stays as it is and a CMATH is fitted anew, quickly, with its own schedule. The adapter
serves every checkpoint, and the CMATH over words is where the live one begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cmath_stream.checkpoint import Checkpoint, ModalitySpec, save
from cmath_stream.model import CMATH
from cmath_stream.training.calibration import describe
from cmath_stream.training.data import (
    MELD7,
    Dialogue,
    Example,
    collate,
    read_dialogues,
    speakers_by_appearance,
)
from cmath_stream.training.embedding import Words
from cmath_stream.training.evaluate import Answers, answer, metrics, softmax
from cmath_stream.training.learning import Rng, learn
from cmath_stream.training.losses import losses
from cmath_stream.training.recipe import Recipe, model_config
from cmath_stream.training.train import class_weights, fit, stretch
from workers import text_adapter
from workers.text_encoder import DEFAULT_ENCODER, load_encoder
from workers.training.lora import LearningEncoder, factors

ADAPTED = f"{DEFAULT_ENCODER}+emotion"


def train_words(
    recipe: Recipe, data_dir: Path, out_dir: Path, *, resume: bool = False, progress: bool = True
) -> Path:
    """Train by the recipe; writes `text` (the adapter) and the recipe's checkpoint to `out_dir`.

    Returns the path of the checkpoint's weights. Raises CmathStreamError.
    """
    corpora = recipe.words
    written = [dialogue for name in corpora.train for dialogue in read_dialogues(data_dir / name)]
    judged = read_dialogues(data_dir / corpora.validation)
    torch.manual_seed(recipe.schedule.seed)
    encoder = load_encoder(DEFAULT_ENCODER, "cpu")
    learning = LearningEncoder(
        encoder, rank=corpora.rank, layers=corpora.layers, dropout=corpora.adapter_dropout
    )
    dim = int(encoder.get_embedding_dimension())
    learner = WordsLearner(recipe, learning, dim, written, judged)
    learn(
        learner,
        recipe.schedule,
        out_dir / f"{recipe.name}.state.pt",
        repr(recipe),
        title=recipe.name,
        resume=resume,
        progress=progress,
    )
    examples, learned_from = learner.embedded(judged), learner.embedded(written)
    fitted = fit(
        replace(recipe, schedule=recipe.settle),
        (("text", dim),),
        lambda epoch: learned_from,
        examples,
        None,
        progress=progress,
    )
    found = describe(
        recipe,
        fitted.model,
        (ModalitySpec("text", ADAPTED, recipe.version, dim),),
        partial(answer, fitted.model, examples),
        label_set="meld7",
        labels=MELD7,
        judged_on=corpora.validation,
        best_epoch=fitted.best_epoch,
    )
    adapter = text_adapter.AdapterMeta(
        name=ADAPTED,
        version=recipe.version,
        dim=dim,
        base=DEFAULT_ENCODER,
        base_sha256=text_adapter.fingerprint(encoder),
        licence=recipe.licence,
        data_sources=recipe.data_sources,
        validation=found.validation,
    )
    text_adapter.save(out_dir / "text", factors(learning.learned()), adapter)
    path = out_dir / f"{recipe.name}.safetensors"
    save(path, fitted.model, found)
    return path


class WordsLearner(nn.Module):
    """An encoder that learns and the CMATH over its embeddings, as one."""

    def __init__(
        self,
        recipe: Recipe,
        encoder: LearningEncoder,
        dim: int,
        written: Sequence[Dialogue],
        judged: Sequence[Dialogue],
    ) -> None:
        super().__init__()
        self.recipe, self.encoder = recipe, encoder
        self.model = CMATH(model_config(recipe, (("text", dim),)))
        # A number of an embedding of unit length has about this deviation, and stays near it while it learns.
        self.model.compressors[0].std.fill_(1.0 / math.sqrt(dim))  # type: ignore[operator]
        self._written, self._judged = written, judged
        labels = [bare(dialogue) for dialogue in written]
        self._weights = class_weights(labels, len(MELD7), recipe.schedule.class_weights)

    def learned(self) -> Mapping[str, Tensor]:
        """The adapter's factors and CMATH's weights."""
        return self.encoder.learned() | {f"cmath.{k}": v for k, v in self.model.state_dict().items()}

    def batches(self, epoch: int, rng: Rng) -> list[list[Dialogue]]:
        """All dialogues in random order."""
        order, size = rng.permutation(len(self._written)), self.recipe.schedule.batch
        return [[self._written[i] for i in order[at : at + size]] for at in range(0, len(order), size)]

    def loss(self, batch: Sequence[Dialogue], rng: Rng, risen: float) -> Tensor:
        """R21 of a batch, through the encoder."""
        chance = self.recipe.schedule.crop
        pieces = [_cut(dialogue, *stretch(len(dialogue.lines), chance, rng)) for dialogue in batch]
        rows = self.encoder([line.text for piece in pieces for line in piece.lines])  # [sum of N, D]
        padded = collate([bare(piece) for piece in pieces])
        mask = torch.from_numpy(padded.mask)
        words = rows.new_zeros((*mask.shape, rows.shape[1]))
        words[mask] = rows  # in order: dialogue by dialogue, padding last
        out = self.model.training_pass((words,), mask[..., None], mask, torch.from_numpy(padded.speaker))
        label = torch.from_numpy(padded.label)
        return losses(out, label, self.recipe.loss, class_weights=self._weights, warm_up=risen).total

    @torch.inference_mode()
    def embedded(self, dialogues: Sequence[Dialogue]) -> list[Example]:
        """Dialogues as CMATH sees them; in eval mode."""
        rows = self.encoder([line.text for dialogue in dialogues for line in dialogue.lines]).numpy()
        ends = np.cumsum([len(dialogue.lines) for dialogue in dialogues])[:-1]
        return [
            Example((words,), example.presence, example.speaker, example.label)
            for words, example in zip(np.split(rows, ends), map(bare, dialogues), strict=True)
        ]

    def judge(self) -> float:
        """Weighted F1."""
        answers = answer(self.model, self.embedded(self._judged))
        return metrics(softmax(answers.logits), answers.label).weighted_f1


def judge_words(checkpoint: Checkpoint, jsonl: Path, cache: Path) -> Answers:
    """Answers on a dialogue JSONL from words alone, every other modality absent; embeddings go to `cache`.

    Raises CheckpointError where the checkpoint was made for other words than the shipped adapter gives.
    """
    words = Words(cache)
    checkpoint.require({"text": words.spec})
    dims = checkpoint.meta.config.dims
    place = checkpoint.meta.config.names.index("text")
    examples = []
    for dialogue in read_dialogues(jsonl):
        blank = bare(dialogue)
        count = len(blank.label)
        features = [np.zeros((count, dim), dtype=np.float32) for _, dim in dims]
        features[place] = words([line.text for line in dialogue.lines])
        presence = np.zeros((count, len(dims)), np.bool_)
        presence[:, place] = True
        examples.append(replace(blank, features=tuple(features), presence=presence))
    return answer(checkpoint.model, examples)


def bare(dialogue: Dialogue) -> Example:
    """A dialogue whose words are not embedded yet."""
    count = len(dialogue.lines)
    return Example(
        features=(np.zeros((count, 0), np.float32),),
        presence=np.ones((count, 1), np.bool_),
        speaker=speakers_by_appearance([line.speaker for line in dialogue.lines]),
        label=np.array([line.label for line in dialogue.lines], dtype=np.int64),
    )


def _cut(dialogue: Dialogue, start: int, stop: int) -> Dialogue:
    return Dialogue(dialogue.name, dialogue.lines[start:stop])
