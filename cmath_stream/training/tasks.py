"""`eval`: the figures of what is shipped, or of another checkpoint, on a task: a table and one JSON line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from cmath_stream.checkpoint import Checkpoint, load
from cmath_stream.checkpoint_files import named
from cmath_stream.training.evaluate import Answers, answer, calibration_interval, metrics
from realtime.errors import SettingsError
from workers.training.judged import Judged


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line names."""

    paths: Sequence[Path]
    checkpoint: str | None  # path or shipped name; None = the task's own
    text: str  # of feature sets: "provided" or "words"
    data: Path | None  # folder that paths inside a SPEC are relative to; None = the SPEC's own
    cache: Path


@dataclass(frozen=True, slots=True)
class Task:
    """A thing that can be judged."""

    help: str
    default: str  # checkpoint or encoder that is judged unless another is named
    paths: int
    judge: Callable[[Asked, str], tuple[Judged, Mapping[str, Any]]]  # and what else goes into the JSON


def judge(task: str, asked: Asked) -> dict[str, Any]:
    """The figures of a task, ready to be printed. Raises CmathStreamError."""
    what = TASKS[task]
    if len(asked.paths) != what.paths:
        raise SettingsError(f"eval {task} takes {what.help.partition(':')[0]}: {what.paths} path(s)")
    judged, more = what.judge(asked, what.default)
    return figures(task, judged) | dict(more)


def figures(task: str, judged: Judged) -> dict[str, Any]:
    """The fields that every task gives."""
    found = metrics(judged.probabilities, judged.label)
    low, high, floor = calibration_interval(judged.probabilities, judged.label)
    per_class = zip(judged.labels, found.f1, found.recall, found.support, strict=True)
    return {
        "task": task,
        "n": found.utterances,
        "accuracy": round(found.accuracy, 4),
        "weighted_f1": round(found.weighted_f1, 4),
        "macro_f1": round(found.macro_f1, 4),
        "per_class": {
            name: {"f1": round(float(f1), 4), "recall": round(float(recall), 4), "n": int(n)}
            for name, f1, recall, n in per_class
        },
        "ece": round(found.ece, 4),
        "ece_95": [round(low, 4), round(high, 4)],
        "ece_of_a_perfect_model": round(floor, 4),
        "protocol": judged.protocol,
        "checkpoint": judged.checkpoint,
    }


def show(result: Mapping[str, Any], console: Console | None = None) -> None:
    """The figures as a table, on standard output unless another console is given."""
    table = Table(
        "", "F1", "recall", "n", title=f"{result['task']}: {result['checkpoint']}", title_justify="left"
    )
    for name, row in result["per_class"].items():
        table.add_row(name, f"{row['f1']:.1%}", f"{row['recall']:.1%}", str(row["n"]))
    console = console or Console()
    console.print(table, highlight=False)
    console.print(
        f"accuracy {result['accuracy']:.1%}, weighted F1 {result['weighted_f1']:.1%}, "
        f"macro F1 {result['macro_f1']:.1%}, calibration error {result['ece']:.1%}, {result['n']} utterances",
        highlight=False,
        soft_wrap=True,
    )


def _answered(checkpoint: Checkpoint, answers: Answers, protocol: str) -> Judged:
    meta = checkpoint.meta
    return Judged(
        probabilities=checkpoint.probabilities(answers.logits, answers.presence),
        label=answers.label,
        labels=meta.labels,
        checkpoint=f"{meta.name}-{meta.version}",
        protocol=protocol,
    )


def _erc_text(asked: Asked, default: str) -> tuple[Judged, Mapping[str, Any]]:
    from cmath_stream.training.words import judge_words  # the sentence encoder costs seconds to import

    checkpoint = load(named(asked.checkpoint or default))
    answers = judge_words(checkpoint, asked.paths[0], asked.cache)
    protocol = "dialogue JSONL, words alone, causal window, all labelled utterances, calibrated"
    return _answered(checkpoint, answers, protocol), {}


def _features(asked: Asked, default: str) -> tuple[Judged, Mapping[str, Any]]:
    from cmath_stream.training.embedding import PlainAndTuned
    from cmath_stream.training.feature_training import WordEncoder, answer_features, read_as_trained

    if asked.checkpoint is None and asked.text == "provided":
        default = f"{default}-provided"
    checkpoint = load(named(asked.checkpoint or default))
    words = PlainAndTuned(asked.cache) if asked.text == "words" else None
    found = read_as_trained(
        checkpoint, asked.paths[0], None if words is None else WordEncoder(words.spec, words)
    )
    protocol = f"all labelled utterances of the file, text: {asked.text}, calibrated"
    return _answered(checkpoint, answer_features(checkpoint, found), protocol), {}


def _voice(asked: Asked, default: str) -> tuple[Judged, Mapping[str, Any]]:
    """An actor's clips as a session, as the live line hears a participant; each clip by itself beside it."""
    from cmath_stream.running import apart
    from cmath_stream.training.banks import centred
    from workers.training.voice import judge_voice

    plain = judge_voice(asked.paths[0], Path(asked.checkpoint) if asked.checkpoint else None)
    odds = np.exp(apart(centred(plain.probabilities), plain.key, plain.group).astype(np.float64))
    judged = replace(
        plain,
        probabilities=odds / odds.sum(axis=1, keepdims=True),
        protocol=f"{plain.protocol}; an actor's clips in shuffled order, each less the running mean of the "
        "ones before it (causal, as in a live session)",
    )
    alone = figures("voice", replace(plain, protocol=f"{plain.protocol}; each clip by itself"))
    return judged, {"each_clip_by_itself": alone}


def _face(asked: Asked, default: str) -> tuple[Judged, Mapping[str, Any]]:
    from workers.training.face import judge_face

    judged = judge_face(asked.paths[0], Path(asked.checkpoint) if asked.checkpoint else None)
    return judged, {name: figures("face", other) for name, other in judged.also.items()}


def _voice_face(asked: Asked, default: str) -> tuple[Judged, Mapping[str, Any]]:
    from cmath_stream.training import acted
    from cmath_stream.training.banks import centred
    from workers.training.voice import judge_voice

    checkpoint = load(named(asked.checkpoint or default))
    audio, units = asked.paths
    heard = judge_voice(audio, None)
    clips = acted.joined(heard.key, centred(heard.probabilities), heard.label, heard.group, units)
    answers = answer(checkpoint.model, acted.sessions(clips, checkpoint.everybody()))
    protocol = (
        "an actor's clips in shuffled order as one session, causal window, causal running normalisation"
    )
    return _answered(checkpoint, answers, protocol), {}


def _live(asked: Asked, default: str) -> tuple[Judged, Mapping[str, Any]]:
    from cmath_stream.training.live import judge_live

    checkpoint = load(named(asked.checkpoint or default))
    spec = asked.paths[0]
    found = judge_live(checkpoint, spec, asked.data or spec.parent, asked.cache)
    patterns = {
        name: figures("live", _answered(checkpoint, answers, f"only {name} is left"))
        for name, answers in found.by_pattern.items()
    }
    follows = {}
    for odd, answers in found.contradicted.items():
        said = _answered(checkpoint, answers, "").probabilities.argmax(axis=1)
        follows[odd] = round(float(np.mean(said == answers.label)), 4)
    whole = max(found.by_pattern, key=len)
    protocol = (
        "grafted conversations, a robustness check and not accuracy on calls: voices and faces absent or in "
        "disagreement as the set says; all labelled utterances of which something is there"
    )
    more = {
        "patterns": {
            name: {key: row[key] for key in ("n", "accuracy", "weighted_f1", "macro_f1", "ece", "ece_95")}
            for name, row in patterns.items()
        },
        "follows_the_two_when_contradicted_by": follows,
    }
    return _answered(checkpoint, found.by_pattern[whole], protocol), more


TASKS = {
    "erc-text": Task("a dialogue JSONL: words alone", "live-small", 1, _erc_text),
    "erc-features": Task("an npz or a community pickle: features as they are given", "mosi", 1, _features),
    "voice": Task("a folder of RAVDESS-named audio: the voice encoder", "voice-cnn", 1, _voice),
    "face": Task("an npz of FER+ pictures and votes: the face encoder", "face-cnn", 1, _face),
    "voice-face": Task(
        "a folder of RAVDESS-named audio and an npz of action units", "ravdess", 2, _voice_face
    ),
    "live": Task("a TOML file that names a grafted set: words, voice and face", "live-small", 1, _live),
}
