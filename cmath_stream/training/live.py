"""The live checkpoint: words, voices and faces of grafted conversations in, a calibrated fusion out.

Knows which features the live line gives, and what grafted conversations are made of. A set of them is named
by paths and numbers alone (`GraftedData`), so the one that judges can be made again anywhere.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from cmath_stream.checkpoint import Checkpoint, ModalitySpec, load, save
from cmath_stream.checkpoint_files import shipped
from cmath_stream.training.banks import Bank, out_of_fold_voices, pictured_faces, recorded_voices
from cmath_stream.training.calibration import describe
from cmath_stream.training.data import MELD7, Dialogue, Example, Floats, read_dialogues
from cmath_stream.training.embedding import Words
from cmath_stream.training.evaluate import Answers, answer, patterns
from cmath_stream.training.graft import Graft, graft
from cmath_stream.training.recipe import GraftedData, Recipe
from cmath_stream.training.train import fit
from realtime.errors import SettingsError
from realtime.settings import build

_SEEDS_A_RUN = 1_000


@dataclass(frozen=True, slots=True)
class GraftedSet:
    """What grafted conversations are drawn from."""

    dialogues: list[Dialogue]
    embedded: Mapping[str, Floats]
    voices: Bank
    faces: Bank
    how: Graft

    def draw(self, seed: int, usual: Floats, odd: str | None = None) -> list[Example]:
        """Another graft with every seed; `odd` names a modality that contradicts the two others."""
        return graft(
            self.dialogues, self.embedded, self.voices, self.faces, self.how, seed=seed, usual=usual, odd=odd
        )


def open_set(data: GraftedData, root: Path, made: Path, words: Words, cache: Path) -> GraftedSet:
    """Read what a set is made of: recordings below `root`, what training left below `made`.

    Raises CmathStreamError.
    """
    dialogues = [dialogue for name in data.dialogues for dialogue in read_dialogues(root / name)]
    texts = sorted({line.text for dialogue in dialogues for line in dialogue.lines})
    from_training = data.voices.endswith(".npz")
    bank = out_of_fold_voices(made / data.voices) if from_training else recorded_voices(root / data.voices)
    bank = bank.of(data.actors)
    return GraftedSet(
        dialogues=dialogues,
        embedded=dict(zip(texts, words(texts), strict=True)),
        voices=bank if data.degraded else replace(bank, vectors=bank.vectors[:1]),
        faces=pictured_faces(root / data.faces, data.pictures, cache),
        how=Graft(data.disagree, data.voiceless, data.faceless),
    )


def train_live(
    recipe: Recipe,
    data_dir: Path,
    out_dir: Path,
    *,
    cache: Path,
    made: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train by the recipe and write the checkpoint to `out_dir`; returns the weights' path.

    What training of the voice encoder left is in `made`, by default `out_dir` too. Raises CmathStreamError.
    """
    made = made or out_dir
    words = Words(cache, recipe.live.encoder, recipe.live.adapter)
    train = open_set(recipe.live.train, data_dir, made, words, cache)
    validation = open_set(recipe.live.validation, data_dir, made, words, cache)
    usual = train.voices.vectors.mean(axis=(0, 1))
    judged = validation.draw(recipe.live.validation.seed, usual)
    specs = (words.spec, *voice_and_face())

    first = recipe.schedule.seed * _SEEDS_A_RUN
    begin = recipe.live.begin_with
    fitted = fit(
        recipe,
        [(spec.modality, spec.inputs) for spec in specs],
        lambda epoch: train.draw(first + epoch, usual),
        judged,
        out_dir,
        initial=_begin(load(shipped(begin)), words.spec) if begin else None,
        resume=resume,
        progress=progress,
    )
    meta = describe(
        recipe,
        fitted.model,
        specs,
        partial(answer, fitted.model, judged),
        label_set="meld7",
        labels=MELD7,
        judged_on=f"grafted: {', '.join(recipe.live.validation.dialogues)}",
        best_epoch=fitted.best_epoch,
    )
    path = out_dir / f"{recipe.name}.safetensors"
    save(path, fitted.model, meta)
    return path


def judge_live(checkpoint: Checkpoint, spec: Path, root: Path, cache: Path) -> Judgement:
    """What a checkpoint says of the grafted set that a TOML file names. Raises CmathStreamError.

    A path to what training left is relative to the file.
    """
    try:
        data = build(GraftedData, tomllib.loads(spec.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{spec}: {error}") from error
    grafted = open_set(data, root, spec.parent, Words(cache), cache)
    names = checkpoint.meta.config.names
    usual = checkpoint.everybody()["audio"]
    drawn = grafted.draw(data.seed, usual)
    return Judgement(
        by_pattern={
            pattern: answer(checkpoint.model, drawn, subset) for pattern, subset in patterns(names).items()
        },
        contradicted={odd: answer(checkpoint.model, grafted.draw(data.seed, usual, odd)) for odd in names},
    )


@dataclass(frozen=True, slots=True)
class Judgement:
    """Answers on a grafted set."""

    by_pattern: Mapping[str, Answers]  # by the modalities that are left
    contradicted: Mapping[str, Answers]  # by the modality that contradicts the two others; label = the two's


def voice_and_face() -> tuple[ModalitySpec, ModalitySpec]:
    """What the shipped encoders of voice and face give."""
    from workers import face_encoder, voice_encoder, voice_file

    voice = voice_file.load(voice_file.shipped())[1]
    face = face_encoder.load(face_encoder.shipped())[1]
    return (
        ModalitySpec("audio", voice.name, voice.version, voice_encoder.FEATURES, running=True),
        ModalitySpec("visual", face.name, face.version, face.config.dim + len(face.labels)),
    )


def _begin(words: Checkpoint, spec: ModalitySpec) -> dict[str, Tensor]:
    """The weights of a checkpoint over words under the names they have where text comes first of several.

    What gathers the centres has another shape there. Raises SettingsError for another encoder's checkpoint.
    """
    if words.meta.modalities != (spec,):
        raise SettingsError(f"checkpoint {words.meta.name!r} does not read {spec.name}/{spec.version} alone")
    state = words.model.state_dict()
    return {key: value for key, value in state.items() if not key.startswith(("gather.", "joint."))}
