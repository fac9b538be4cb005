"""Many inputs, each a conversation (or a file of them) of its own → one file of events each.

What is finished is not done again; what failed is said and costs no other.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cmath_stream.checkpoint_files import CheckpointError
from cmath_stream.config import Settings
from cmath_stream.console import set_up_logging
from cmath_stream.offline import Machines
from cmath_stream.replaying.crew import Lost, Work, together
from cmath_stream.replaying.feeds import Asked, open_feed
from cmath_stream.replaying.told import Told, event_file, write
from realtime.errors import CmathStreamError, ModelUnavailable, SettingsError
from realtime.taping import SUFFIX

MEDIA = frozenset(
    ".3gp .aac .ac3 .aif .aiff .amr .asf .au .avi .caf .f4v .flac .flv .m2ts .m4a .m4v .mka .mkv .mov .mp2 "
    ".mp3 .mp4 .mpeg .mpg .mts .mxf .nut .oga .ogg .ogv .opus .ra .rm .spx .ts .voc .vob .w64 .wav .webm "
    ".wma .wmv .wv".split()
)
_PROCESS_BYTES = 1_500 << 20  # of one process with all models, a speech recogniser among them
_SAY_S = 0.2  # how often a process says how far it is


@dataclass(frozen=True, slots=True)
class Task:
    """One input and where its events go."""

    asked: Asked
    out: Path
    size: int  # bytes of its files, by which the work is weighed


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a task."""

    name: str
    told: Told | None  # None: it failed, or was there
    notes: tuple[str, ...] = ()
    failed: str | None = None  # why, one line


def found_in(folder: Path) -> list[Path]:
    """The recordings in a folder and below it, told by the suffix, in order of their names."""
    known = MEDIA | {SUFFIX}
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in known and p.is_file())


def named(files: Sequence[Path], roots: Sequence[Path]) -> dict[Path, str]:
    """Every file → its name below the folder that all `roots` share: folders, and those of single files."""
    common = Path(os.path.commonpath([root.resolve() for root in roots]))
    return {file: (file.parent.resolve() / file.name).relative_to(common).as_posix() for file in files}


def most_processes() -> int:
    """As many as there is room for: a process uses two cores and up to 1.5 GB."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // 2, _free_bytes() // _PROCESS_BYTES))


def _free_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):  # not Linux: one core in two decides
        return 1 << 62


def run(
    tasks: Sequence[Task],
    settings: Settings,
    processes: int,
    on_progress: Callable[[int, float], None],
) -> Iterator[tuple[int, Result]]:
    """(place, result) of every task as it is done. Raises CmathStreamError where none can be done at all."""
    level = logging.getLevelName(logging.getLogger("cmath_stream").level)
    for place, result in together(tasks, partial(_worker, settings, level), processes, on_progress):
        if isinstance(result, Lost):
            result = Result(tasks[place].asked.name, None, failed=result.why)
        yield place, result


def _worker(settings: Settings, log_level: str) -> Work[Task, Result]:
    set_up_logging(log_level)
    return partial(replay_task, Machines(settings))


def replay_task(machines: Machines, task: Task, on_progress: Callable[[float], None]) -> Result:
    """Replay one input into its file; `on_progress` gets the share that is done.

    Raises CmathStreamError only for what is wrong with the models or the settings.
    """
    told, said_s = Told(), 0.0

    try:
        feed = open_feed(task.asked, machines.tape)

        def say(done: float) -> None:
            nonlocal said_s
            if feed.total and time.monotonic() - said_s > _SAY_S:
                said_s = time.monotonic()
                on_progress(min(done / feed.total, 1.0))

        with event_file(task.out) as lines:
            write(told.count(feed.run(machines, say)), lines)
    except (CheckpointError, ModelUnavailable, SettingsError):
        raise
    except (CmathStreamError, OSError) as error:
        return Result(task.asked.name, None, failed=str(error))
    return Result(task.asked.name, told, tuple(feed.notes))
