"""Processes that share tasks: all done once, a death costs one task, a common error ends them all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cmath_stream.replaying.crew import Lost, Work, together
from realtime.errors import CmathStreamError

Task = tuple[str, int]


def make(folder: Path) -> Work[Task, tuple[int, int]]:
    (folder / f"made-{os.getpid()}").touch()
    return work


def work(task: Task, on_progress: Callable[[float], None]) -> tuple[int, int]:
    what, number = task
    on_progress(0.5)
    match what:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            os._exit(3)
        case "raise":
            raise ValueError("of one file\nwith more lines")
        case "common":
            raise CmathStreamError("the weights are gone")
    return number * number, os.getpid()


def unmakeable() -> Work[Task, tuple[int, int]]:
    raise CmathStreamError("no weights at all")


def done(tasks: list[Task], folder: Path, processes: int) -> dict[int, tuple[int, int] | Lost]:
    return dict(together(tasks, partial(make, folder), processes, lambda place, share: None))


def test_every_task_is_done_once_by_as_many_processes_as_are_made(tmp_path: Path) -> None:
    halves: list[tuple[int, float]] = []
    tasks = [("square", n) for n in range(7)]
    found = dict(together(tasks, partial(make, tmp_path), 2, lambda *told: halves.append(told)))
    squares = [result[0] for _, result in sorted(found.items()) if not isinstance(result, Lost)]
    assert squares == [n * n for n in range(7)]
    made = {path.name.removeprefix("made-") for path in tmp_path.iterdir()}
    assert len(made) == 2 and str(os.getpid()) not in made
    assert sorted(halves) == [(n, 0.5) for n in range(7)]


def test_who_dies_or_raises_costs_one_task(tmp_path: Path) -> None:
    tasks = [("square", 2), ("die", 0), ("leave", 0), ("raise", 0), ("square", 3)]
    found = done(tasks, tmp_path, 1)
    assert found[1] == Lost("its process was ended by SIGKILL: out of memory?")
    assert found[2] == Lost("its process ended with 3")
    assert found[3] == Lost("unexpected ValueError: of one file")
    kept = [found[0], found[4]]
    assert [result[0] for result in kept if not isinstance(result, Lost)] == [4, 9]


def test_what_every_task_would_meet_ends_them_all(tmp_path: Path) -> None:
    with pytest.raises(CmathStreamError, match="the weights are gone"):
        done([("common", 0), *[("square", 1)] * 50], tmp_path, 1)
    with pytest.raises(CmathStreamError, match="no weights at all"):
        list(together([("square", 1)], unmakeable, 1, lambda place, share: None))


def test_whoever_stops_asking_leaves_no_process(tmp_path: Path) -> None:
    going = together([("square", n) for n in range(9)], partial(make, tmp_path), 2, lambda place, share: None)
    next(going)
    going.close()  # type: ignore[attr-defined]
    pids = [int(path.name.removeprefix("made-")) for path in tmp_path.iterdir()]
    until = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        pass
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
