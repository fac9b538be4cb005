"""`cmath-stream replay`: which inputs are one conversation and which are many, and where their events go."""

from __future__ import annotations

import glob
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmath_stream.console import plain_line
from cmath_stream.sources.stdin import spooled

if TYPE_CHECKING:
    from cmath_stream.batch import Result, Task
    from cmath_stream.config import Settings
    from cmath_stream.feeds import Asked


def replay(
    context: typer.Context,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUTS...", help="Files; with --each folders and patterns too.")
    ],
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            help="VTT, SRT, STM or JSON; repeat for more. With --each a folder of FILE.vtt and so on."
        ),
    ] = None,
    participant: Annotated[
        list[str] | None, typer.Option(help="Names, in the order of INPUTS; of one file, of its channels.")
    ] = None,
    turns: Annotated[
        Path | None,
        typer.Option(
            help="Who speaks when in a recording of several people: RTTM, VTT with <v Name>, EAF or STM."
            " With --each also a folder of FILE.rttm and so on."
        ),
    ] = None,
    media_dir: Annotated[
        Path | None, typer.Option(help="Folder of a dialogue's clips, named dia3_utt7.mp4 as MELD has them.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the events here (JSONL; with --each a folder); default standard output."),
    ] = None,
    each: Annotated[bool, typer.Option("--each", help="Every input is a conversation of its own.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --each: processes, two cores and up to 1.5 GB each; default what fits."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="With --each: redo what is finished already.")
    ] = False,
) -> None:
    """Run recordings or written dialogues through the whole line, offline, as fast as it goes.

    INPUTS are one conversation: a recording each participant, or one recording of several
    people (a channel each with --participant, or by --turns). A file of written dialogues is a
    conversation each dialogue: JSON lines, or a CSV with the columns of MELD. `-` is standard
    input: a recording, or dialogues as JSON lines.

    With --each every input is a conversation of its own, and so is every recording in a
    folder; the folder of --out gets a file of events for each, and what is there already is
    not done again.

    A recording of two channels is one participant who is heard on both, unless it gets two
    --participant.
    """
    settings = context.obj.settings()
    if each:
        if out is None or out.is_file():
            raise _usage("writes a file of events for each input: name a folder", "--out")
        if participant:
            raise _usage("names the people of one conversation: not with --each", "--participant")
        tasks = _tasks(_files(inputs), captions or [], turns, media_dir, out)
        _replay_each(tasks, settings, jobs, again=again)
        return
    if jobs is not None or again:
        raise _usage("is for many inputs: add --each", "--jobs" if jobs is not None else "--again")
    with spooled(inputs, sys.stdin.buffer) as found:
        _replay_one(_asked(found, captions or [], participant or [], turns, media_dir), settings, out)


def _usage(what: str, option: str) -> typer.BadParameter:
    return typer.BadParameter(what, param_hint=option)


def _asked(
    inputs: Sequence[str],
    captions: Sequence[Path],
    participants: Sequence[str],
    turns: Path | None,
    media_dir: Path | None,
) -> Asked:
    """One conversation, or one file of conversations."""
    from cmath_stream.feeds import Asked, is_dialogues

    files = tuple(map(Path, inputs))
    if len(set(files)) < len(files):
        raise _usage("the same file twice", "INPUTS")
    for file in files:
        if file.is_dir():
            raise _usage(f"{file} is a folder: --each replays every recording in it", "INPUTS")
    if any(map(is_dialogues, files)):
        if len(files) > 1:
            raise _usage("a file of dialogues is an input by itself: --each takes several", "INPUTS")
        for option, given in (("--captions", captions), ("--participant", participants), ("--turns", turns)):
            if given:
                raise _usage(f"{files[0].name} brings its own words and speakers", option)
    elif media_dir is not None:
        raise _usage("is for the clips of written dialogues (.jsonl, .csv)", "--media-dir")
    if turns is not None and (len(files) > 1 or participants):
        raise _usage("names the people of one recording: no more files, and no --participant", "--turns")
    return Asked(
        files, captions=tuple(captions), participants=tuple(participants), turns=turns, media_dir=media_dir
    )


def _files(inputs: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """All files that are meant, and the folders that they are named from."""
    from cmath_stream.batch import found_in

    files: dict[Path, None] = {}
    roots: list[Path] = []
    for each in inputs:
        matching = [Path(each)] if Path(each).exists() else sorted(map(Path, glob.glob(each, recursive=True)))
        if not matching:
            raise _usage(f"nothing is called {plain_line(each)}", "INPUTS")
        for path in matching:
            found = found_in(path) if path.is_dir() else [path]
            files |= dict.fromkeys(found)
            roots.append(path if path.is_dir() else path.parent)
    if not files:
        raise _usage("no recordings there", "INPUTS")
    return list(files), roots


def _tasks(
    found: tuple[list[Path], list[Path]],
    captions: Sequence[Path],
    turns: Path | None,
    media_dir: Path | None,
    out: Path,
) -> list[Task]:
    from cmath_stream.batch import Task, named
    from cmath_stream.feeds import Asked, is_dialogues
    from cmath_stream.sources import turns as turn_files
    from realtime.captions import PARSERS

    if any(not folder.is_dir() for folder in captions):
        raise _usage("with --each names folders of captions, not files", "--captions")
    files, roots = found
    tasks = []
    for file, name in named(files, roots).items():
        if is_dialogues(file):
            asked = Asked((file,), name, media_dir=media_dir)
        else:
            words = [
                path for folder in captions for path in _beside(folder, file, (*PARSERS, ".captions.json"))
            ]
            marked = turns
            if turns is not None and turns.is_dir():
                # the name that is missing is said when the file's turn comes
                marked = next(iter(_beside(turns, file, turn_files.FORMATS)), turns / f"{file.stem}.rttm")
            asked = Asked((file,), name, tuple(words), turns=marked)
        tasks.append(Task(asked, out / f"{name}.jsonl", file.stat().st_size))
    return tasks


def _beside(folder: Path, file: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder that are named after a recording."""
    paths = [folder / f"{file.stem}{suffix}" for suffix in suffixes]
    return [path for path in paths if path.is_file()]


def _replay_one(asked: Asked, settings: Settings, out: Path | None) -> None:
    from cmath_stream.feeds import open_feed
    from cmath_stream.offline import Machines
    from cmath_stream.progress import bars
    from cmath_stream.replaying import Told, whole_file, write

    feed = open_feed(asked)
    told = Told()
    with bars(quiet=out is None and sys.stdout.isatty()) as shown, whole_file(out) as lines:
        unit = "× real time" if feed.in_seconds else " utterances/s"
        bar = shown.add_task("replay", total=feed.total, unit=unit)
        events = feed.run(Machines(settings), lambda done: shown.update(bar, completed=done))
        write(told.count(events), lines)
    for note in feed.notes:
        _say(f"note: {note}")
    where = f" in {out}" if out else ""
    sessions = f" of {told.sessions} conversations" if told.sessions > 1 else ""
    _say(f"{told.utterances} utterances{sessions}{where}")


def _replay_each(tasks: Sequence[Task], settings: Settings, jobs: int | None, *, again: bool) -> None:
    import time

    from cmath_stream import batch
    from cmath_stream.checkpoint_files import fingerprint, named
    from cmath_stream.progress import bars

    fingerprint(named(settings.fusion.checkpoint))  # what is wrong with it is said once, and before the work
    left = [task for task in tasks if again or not task.out.is_file()]
    there = len(tasks) - len(left)
    processes = min(jobs or batch.most_processes(), max(len(left), 1))
    width = max((len(plain_line(task.asked.name)) for task in left), default=0)
    failed: list[batch.Result] = []
    done, seconds, began_s = 0, 0.0, time.monotonic()
    shares = [0.0] * len(left)
    with bars() as shown:
        bar = shown.add_task(f"0/{len(left)} files", total=sum(task.size for task in left), unit=None)

        def progress(place: int, share: float) -> None:
            shares[place] = share
            at = sum(task.size * each for task, each in zip(left, shares, strict=True))
            rate = seconds / max(time.monotonic() - began_s, 1e-3)
            shown.update(bar, completed=at, description=f"{done}/{len(left)} files, {rate:.0f}× real time")

        for place, result in batch.run(left, settings, processes, progress):
            done += 1
            if result.told is None:
                failed.append(result)
            else:
                seconds += result.told.seconds
            progress(place, 1.0)
            line = _row(result, width)
            if sys.stdout.isatty():
                shown.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                print(line, flush=True)
    for result in failed:
        _say(f"failed: {plain_line(result.name)}: {plain_line(result.failed or '')}")
    already = f", {there} there already (--again redoes them)" if there else ""
    _say(f"{len(left) - len(failed)} replayed{already}, {len(failed)} failed")
    if failed:
        raise typer.Exit(1)


def _row(result: Result, width: int) -> str:
    """One input and what came of it."""
    name = plain_line(result.name).ljust(width)
    if result.told is None:
        return f"{name}  FAILED  {plain_line(result.failed or '')}"
    notes = "".join(f"; {plain_line(note)}" for note in result.notes)
    dropped = f", {result.told.dropped} dropped" if result.told.dropped else ""
    return f"{name}  {result.told.utterances} utterances{dropped}{notes}"


def _say(line: str) -> None:
    print(plain_line(line), file=sys.stderr)
