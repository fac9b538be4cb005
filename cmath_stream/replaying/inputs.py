"""The inputs of `replay` as they stand on the command line → what is one conversation, and what are many.

Raises typer.BadParameter, naming the option, for what goes together in no replay.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from cmath_stream.console import plain_line
from cmath_stream.replaying.batch import Task, found_in, named
from cmath_stream.replaying.feeds import FIND_OUT, Asked, is_dialogues, is_recording
from cmath_stream.sources.turns import FORMATS
from realtime.captions import PARSERS


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of the inputs."""

    captions: Sequence[Path] = ()
    participants: Sequence[str] = ()
    turns: Path | None = None
    speakers: int | None = None
    media_dir: Path | None = None


def usage(what: str, option: str) -> typer.BadParameter:
    """Wrong usage, which is exit code 2."""
    return typer.BadParameter(what, param_hint=option)


def one(inputs: Sequence[str], options: Options) -> Asked:
    """One conversation, or one file of conversations."""
    files = tuple(map(Path, inputs))
    if len(set(files)) < len(files):
        raise usage("the same file twice", "INPUTS")
    for file in files:
        if file.is_dir():
            raise usage(f"{file} is a folder: --each replays every recording in it", "INPUTS")
    whole = next((file for file in files if not is_recording(file)), None)
    if whole is not None:
        if len(files) > 1:
            raise usage(f"{whole.name} is an input by itself: --each takes several", "INPUTS")
        people = ("--captions", options.captions), ("--participant", options.participants)
        for option, given in (*people, ("--turns", options.turns), ("--speakers", options.speakers)):
            if given or given == FIND_OUT:
                raise usage(f"{whole.name} brings its own words and speakers", option)
    if options.media_dir is not None and not any(map(is_dialogues, files)):
        raise usage("is for the clips of written dialogues (.jsonl, .csv)", "--media-dir")
    _check_shared(options, len(files))
    return Asked(
        files,
        captions=tuple(options.captions),
        participants=tuple(options.participants),
        turns=options.turns,
        speakers=options.speakers,
        media_dir=options.media_dir,
    )


def _check_shared(options: Options, files: int) -> None:
    """What is said of the people who share one recording."""
    for option, given in (("--turns", options.turns), ("--speakers", options.speakers)):
        if given is not None and (files > 1 or options.participants):
            raise usage("is for the people of one recording: no more files, no --participant", option)
    if options.turns is not None and options.speakers is not None:
        raise usage("would guess what --turns knows", "--speakers")


def many(inputs: Sequence[str], options: Options, out: Path) -> list[Task]:
    """Every file, those in folders and of patterns among them, as an input of its own."""
    if options.participants:
        raise usage("names the people of one conversation: not with --each", "--participant")
    if any(not folder.is_dir() for folder in options.captions):
        raise usage("with --each names folders of captions, not files", "--captions")
    _check_shared(options, 1)
    files, roots = _files(inputs)
    every = {name: file for file, name in named(files, roots).items()}  # one that is named twice is one
    return [
        Task(_asked(file, name, options), out / f"{name}.jsonl", file.stat().st_size)
        for name, file in every.items()
    ]


def _asked(file: Path, name: str, options: Options) -> Asked:
    if not is_recording(file):
        return Asked((file,), name, media_dir=options.media_dir)
    suffixes = (*PARSERS, ".captions.json")
    words = [path for folder in options.captions for path in _beside(folder, file, suffixes)]
    turns = options.turns
    if turns is not None and turns.is_dir():
        # where there are none, the name that is missing is said when the file's turn comes
        turns = next(iter(_beside(turns, file, FORMATS)), turns / f"{file.stem}.rttm")
    return Asked((file,), name, tuple(words), turns=turns, speakers=options.speakers)


def _files(inputs: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """All files that are meant, and the folders that they are named from."""
    files: dict[Path, None] = {}
    roots: list[Path] = []
    for each in inputs:
        matching = [Path(each)] if Path(each).exists() else sorted(map(Path, glob.glob(each, recursive=True)))
        if not matching:
            raise usage(f"nothing is called {plain_line(each)}", "INPUTS")
        for path in matching:
            found = found_in(path) if path.is_dir() else [path]
            files |= dict.fromkeys(found)
            roots.append(path if path.is_dir() else path.parent)
    if not files:
        raise usage("no recordings there", "INPUTS")
    return list(files), roots


def _beside(folder: Path, file: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder that are named after a recording."""
    paths = [folder / f"{file.stem}{suffix}" for suffix in suffixes]
    return [path for path in paths if path.is_file()]
