"""CMATH on a feature set: a checkpoint, a cross-validation with variants and baselines, a judgement.

Whoever calls brings the encoder of words. A validation part chooses the epoch, always in whole dialogues and
never out of what is judged; on a small set it costs more than it gives, and a recipe can do without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmath_stream.checkpoint import Checkpoint, ModalitySpec, save
from cmath_stream.training.calibration import Ask, describe
from cmath_stream.training.crossval import concat_mlp, folds_by_group, held_out, majority
from cmath_stream.training.data import UNLABELLED, DataError
from cmath_stream.training.evaluate import Answers, Labels, answer, joined, softmax
from cmath_stream.training.feature_files import RawSet, read_raw
from cmath_stream.training.feature_recipe import FeatureRecipe, check_model, cmath_recipe, varied
from cmath_stream.training.feature_sets import Embed, FeatureSet, feature_set, read_feature_set
from cmath_stream.training.train import Fitted, fit

_MLP_SHARE = 0.15  # rows that choose the baseline's epoch where the recipe holds nothing out
PROVIDED = "provided"  # the version that a checkpoint gives features which came with their set


@dataclass(frozen=True, slots=True)
class WordEncoder:
    """What makes text features of words, and what a checkpoint trained on them will ask for by name."""

    spec: ModalitySpec
    embed: Embed


@dataclass(frozen=True, slots=True)
class Variant:
    """What one row of a table is: which kind of model, on which modalities, with which keys changed."""

    kind: Literal["cmath", "concat_mlp", "majority"] = "cmath"
    modalities: tuple[str, ...] = ()  # empty = the recipe's
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # tables model, schedule, loss


class OutOfFold(NamedTuple):
    """Answers about every labelled utterance by models that saw nothing of its dialogue."""

    probabilities: NDArray[np.float64]  # [S, n, C], uncalibrated
    label: Labels  # [n]
    group: list[str]  # [n], the dialogue


def read_for(recipe: FeatureRecipe, path: Path, words: WordEncoder | None) -> FeatureSet:
    """The file's set, with the recipe's text and modalities. Raises DataError."""
    read = read_feature_set(path, text=recipe.text, embed=None if words is None else words.embed)
    return read.only(recipe.modalities) if recipe.modalities else read


def read_as_trained(checkpoint: Checkpoint, path: Path, words: WordEncoder | None) -> FeatureSet:
    """The file's set with text of the kind the checkpoint learned from: of the words, or as provided.

    Raises DataError where the checkpoint asks for another encoder, or for features no set provides.
    """
    return as_trained(checkpoint, path, read_raw(path), words)


def wants_words(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint learned from an encoder's features of the words, not from a set's own."""
    return any(spec.modality == "text" and spec.version != PROVIDED for spec in checkpoint.meta.modalities)


def as_trained(checkpoint: Checkpoint, path: Path, raw: RawSet, words: WordEncoder | None) -> FeatureSet:
    """`read_as_trained` of what was read already."""
    wanted = {spec.modality: spec for spec in checkpoint.meta.modalities}
    own = [modality for modality, spec in wanted.items() if spec.version == PROVIDED]
    if foreign := sorted(set(wanted) - set(own) - {"text"}):
        raise DataError(
            f"checkpoint {checkpoint.meta.name!r} was not trained on a set's {foreign[0]} features"
        )
    if not wants_words(checkpoint):
        return feature_set(path, raw)
    if words is None or words.spec != wanted["text"]:
        raise DataError(f"checkpoint {checkpoint.meta.name!r} wants words by {wanted['text'].name}")
    return feature_set(path, raw, words.embed)


def train_features(
    recipe: FeatureRecipe,
    data_dir: Path,
    out_dir: Path,
    words: WordEncoder | None,
    *,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train the recipe's checkpoint on the training part into `out_dir`; returns the weights' path.

    A part that the set's makers held out for testing is left alone; where they named no validation part,
    `validation_share` of the training rows is held out to choose the epoch and to calibrate. A share of 0
    holds nothing out: all learn, and models of a cross-validation stand in when it is calibrated.
    """
    whole = read_for(recipe, data_dir / recipe.features, words)
    learning, judged = parts(whole, recipe)
    seed = recipe.schedule.seed
    fitted = fit_part(recipe, learning, judged, seed, out_dir, resume=resume, progress=progress)
    path = out_dir / f"{recipe.name}.safetensors"
    if judged.conversations:
        ask: Ask = partial(answer, fitted.model, judged.examples)
        judged_on = f"{len(judged.conversations)} dialogues of {recipe.features}"
    else:
        ask = across_folds(recipe, learning)
        judged_on = f"{recipe.features}, {recipe.folds} folds by dialogue"
    meta = describe(
        recipe,
        fitted.model,
        specs(whole, recipe, words),
        ask,
        label_set=recipe.label_set or judged.label_set,
        labels=judged.labels,
        judged_on=judged_on,
        best_epoch=fitted.best_epoch,
    )
    save(path, fitted.model, meta)
    return path


def parts(whole: FeatureSet, recipe: FeatureRecipe) -> tuple[FeatureSet, FeatureSet]:
    """Training and validation dialogues, by the set's makers where they named them."""
    if whole.train is None or whole.validation is None:
        open_ = whole if whole.train is None else whole.part(whole.train)
        return split(open_, recipe.validation_share, recipe.schedule.seed)
    return whole.part(whole.train), whole.part(whole.validation)


def split(whole: FeatureSet, share: float, seed: int) -> tuple[FeatureSet, FeatureSet]:
    """The larger and the smaller part, in whole dialogues. Raises DataError where there is but one.

    A share of 0 leaves the smaller one empty.
    """
    if share == 0.0:
        return whole, whole.part(())
    groups = whole.groups
    try:
        apart = held_out(groups, share, seed)
    except ValueError as error:
        raise DataError(f"{whole.name}: cannot hold out a validation part: {error}") from error
    held = {group for group, out in zip(groups, apart, strict=True) if out}
    return whole.part(set(groups) - held), whole.part(held)


def fit_part(
    recipe: FeatureRecipe,
    learning: FeatureSet,
    judged: FeatureSet,
    seed: int,
    out_dir: Path | None,
    *,
    resume: bool = False,
    progress: bool = False,
) -> Fitted:
    """One trained model. Raises SettingsError where recipe and modalities do not go together."""
    check_model(recipe, learning.modalities)
    everything = "+".join(name for name, _ in learning.modalities)
    examples = learning.examples
    return fit(
        cmath_recipe(recipe, seed, recipe.judged_by or (everything,)),
        learning.modalities,
        lambda epoch: examples,
        judged.examples,
        out_dir,
        classes=len(learning.labels),
        resume=resume,
        progress=progress,
    )


def across_folds(recipe: FeatureRecipe, whole: FeatureSet) -> Ask:
    """Answers about all of a set, each dialogue's by a model that learned from the other folds alone."""
    place = np.asarray(whole.groups)
    fold = folds_by_group(whole.groups, recipe.folds, seed=0)
    asked = [whole.part(set(place[fold == k])) for k in range(recipe.folds)]
    models = [
        fit_part(
            recipe,
            whole.part(set(place) - set(part.groups)),
            whole.part(()),
            recipe.schedule.seed,
            None,
        ).model
        for part in asked
    ]

    def ask(keep: Sequence[int]) -> Answers:
        found = [answer(model, part.examples, keep) for model, part in zip(models, asked, strict=True)]
        return joined(found)

    return ask


def cross_validate(
    recipe: FeatureRecipe,
    whole: FeatureSet,
    variant: Variant | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> OutOfFold:
    """Answers of `recipe.seeds` models a fold: folds by dialogue, and in each a validation part by dialogue.

    The folds are the same for every variant and seed, so that answers can be compared row by row. The MLP
    always has a validation part: it would learn its training rows by heart long before its last epoch.
    Where the set's makers held out a test part, only their training and validation dialogues take part.
    `progress` is told how many of how many fits are done. Raises SettingsError or DataError.
    """
    variant = variant or Variant()
    recipe = varied(recipe, variant.changes)
    if whole.train is not None:
        whole = whole.part([*whole.train, *(whole.validation or ())])
    if variant.modalities:
        whole = whole.only(variant.modalities)
        recipe = replace(recipe, judged_by=())
    groups = whole.groups
    fold = folds_by_group(groups, recipe.folds, seed=0)
    label = np.concatenate([example.label for example in whole.examples])
    counted = label != UNLABELLED
    place = np.asarray(groups)
    result = np.zeros((recipe.seeds, len(label), len(whole.labels)))
    share = recipe.validation_share or (_MLP_SHARE if variant.kind == "concat_mlp" else 0.0)
    for seed in range(1, recipe.seeds + 1):
        for k in range(recipe.folds):
            outside = set(place[fold == k])
            learning, judged = split(whole.part(set(groups) - outside), share, seed)
            answered = _answers(recipe, variant, learning, judged, whole.part(outside), seed)
            result[seed - 1, (fold == k) & counted] = answered
            if progress is not None:
                progress((seed - 1) * recipe.folds + k + 1, recipe.seeds * recipe.folds)
    return OutOfFold(result[:, counted], label[counted], place[counted].tolist())


def _answers(
    recipe: FeatureRecipe,
    variant: Variant,
    learning: FeatureSet,
    judged: FeatureSet,
    asked: FeatureSet,
    seed: int,
) -> NDArray[np.float64]:
    """[n, C] about the labelled rows of `asked`."""
    classes = len(asked.labels)
    if variant.kind == "majority":
        return majority(learning.examples, asked.examples, classes)
    if variant.kind == "concat_mlp":
        balance = recipe.schedule.class_weights
        return concat_mlp(learning.examples, judged.examples, asked.examples, classes, seed, balance=balance)
    model = fit_part(recipe, learning, judged, seed, None).model
    result = majority(learning.examples, asked.examples, classes)  # for utterances with nothing present
    label = np.concatenate([example.label for example in asked.examples])
    present = np.concatenate([example.presence.any(axis=1) for example in asked.examples])
    result[present[label != UNLABELLED]] = softmax(answer(model, asked.examples).logits)
    return result


def specs(whole: FeatureSet, recipe: FeatureRecipe, words: WordEncoder | None) -> tuple[ModalitySpec, ...]:
    """What the checkpoint says its features are: the encoder of words, or the set's own."""
    own = [ModalitySpec(name, f"{whole.name}-{name}", PROVIDED, dim) for name, dim in whole.modalities]
    if recipe.text == "words" and words is not None:
        own = [words.spec if spec.modality == "text" else spec for spec in own]
    return tuple(own)


def answer_features(checkpoint: Checkpoint, whole: FeatureSet, keep: Sequence[int] | None = None) -> Answers:
    """Answers on every labelled utterance of a set, with only the modalities `keep` present.

    Raises DataError where the set has other labels or features of another shape than the checkpoint.
    """
    return answer(checkpoint.model, fitting(checkpoint, whole).examples, keep)


def fitting(checkpoint: Checkpoint, whole: FeatureSet) -> FeatureSet:
    """The set with the modalities of a checkpoint, in its order.

    Raises DataError where the set has other labels or features of another shape than the checkpoint.
    """
    meta = checkpoint.meta
    if whole.labels != meta.labels:
        raise DataError(f"{whole.name}: labels {whole.labels}, checkpoint {meta.name!r} knows {meta.labels}")
    chosen = whole.only([spec.modality for spec in meta.modalities])
    if chosen.modalities != meta.config.dims:
        raise DataError(
            f"{whole.name}: features {chosen.modalities}, checkpoint {meta.name!r} takes {meta.config.dims}"
        )
    return chosen
