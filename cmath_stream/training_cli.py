"""`cmath-stream train` and `eval`: learn by a recipe, judge what was learned."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Task(StrEnum):
    """What `eval` can judge."""

    erc_text = "erc-text"
    erc_features = "erc-features"
    voice = "voice"
    face = "face"
    voice_face = "voice-face"
    live = "live"


# Beside the code that judges (`tasks`), which brings torch; a test holds the two together.
EVAL_HELP = "\n\n".join(
    f"{task}: {what}"
    for task, what in (
        ("erc-text", "dialogue JSONL, words alone. Default: live-small"),
        (
            "erc-features",
            "npz, or IEMOCAP/MELD pickle (name its checkpoint). Default: mosi, mosi-provided",
        ),
        ("voice", "folder of RAVDESS-named audio. Default: the voice encoder"),
        ("face", "npz of FER+ pictures and votes. Default: the face encoder"),
        ("voice-face", "the same folder and an npz of action units. Default: ravdess"),
        ("live", "TOML that names a grafted set, such as configs/live-validation.toml. Default: live-small"),
    )
)


class TextOf(StrEnum):
    """Which text features of a feature set count."""

    provided = "provided"
    words = "words"


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as configs/train-live.toml.")],
    data: Annotated[Path, typer.Option(help="Folder with meld/, ravdess/, ferplus/ ...")],
    out: Annotated[Path, typer.Option(help="Folder for weights, and for what later runs build on.")] = Path(
        "out"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from an interrupted run in OUT.")] = False,
) -> None:
    """Train an encoder or a fusion checkpoint by a recipe: seeded, with a progress bar, resumable."""
    from cmath_stream.training.run import run

    typer.echo(run(recipe, data, out, resume=resume))


def evaluate(
    task: Annotated[Task, typer.Argument(help="What is judged; see below.")],
    paths: Annotated[list[Path], typer.Argument(help="The data of the task.")],
    checkpoint: Annotated[str | None, typer.Option(help="Path or shipped name; default see below.")] = None,
    text: Annotated[
        TextOf,
        typer.Option(help="Of feature sets: their own text (and visual), or our embedding of the words."),
    ] = TextOf.provided,
    data: Annotated[
        Path | None, typer.Option(help="Folder that paths in a SPEC are relative to; default SPEC's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, no table.")] = False,
) -> None:
    """Judge a checkpoint or encoder; the last line printed is one JSON object."""
    from cmath_stream.training.tasks import Asked, judge, show
    from realtime.cache import cache_folder

    result = judge(task.value, Asked(paths, checkpoint, text.value, data, cache_folder()))
    if not as_json:
        show(result)
    typer.echo(json.dumps(result))
