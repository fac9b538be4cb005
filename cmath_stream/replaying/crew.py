"""Tasks over a few processes, one task each at a time. A process that dies costs the task it had, no other.

Knows processes and pipes; not what a task is. Task, word of progress and result must be picklable.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from cmath_stream.parenthood import die_with
from realtime.errors import CmathStreamError

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[T, Callable[[float], None]], R]  # a task, and whom to tell how far it is (0..1) → its result


@dataclass(frozen=True, slots=True)
class Lost:
    """A task that has no result, because its process ended or raised what it should not."""

    why: str


@dataclass(slots=True)
class _Hand(Generic[T]):
    process: BaseProcess
    pipe: Connection
    place: int | None = None  # of the task it has


def together(
    tasks: Sequence[T],
    make: Callable[[], Work[T, R]],
    processes: int,
    on_progress: Callable[[int, float], None],
) -> Iterator[tuple[int, R | Lost]]:
    """(place, result) of every task, as they are done. `make` is called once in each process.

    `on_progress` gets the place of a task and how far it is. A CmathStreamError that `make` or a task raises
    is one that every task would meet: it is raised here, and ends them all.
    """
    coming = list(reversed(range(len(tasks))))
    hands: list[_Hand[T]] = []
    try:
        while coming or any(hand.place is not None for hand in hands):
            while coming and len(hands) < processes:
                hands.append(_hire(make))
                _give(hands[-1], tasks, coming)
            for pipe in wait([hand.pipe for hand in hands]):
                hand = next(each for each in hands if each.pipe is pipe)
                assert hand.place is not None
                try:
                    kind, value = hand.pipe.recv()
                except (EOFError, OSError):
                    hand.process.join()
                    yield hand.place, Lost(_end_of(hand.process))
                    hands.remove(hand)
                    continue
                if kind == "progress":
                    on_progress(hand.place, value)
                    continue
                if kind == "fatal":
                    raise value
                yield hand.place, Lost(value) if kind == "lost" else value
                hand.place = None
                if coming:
                    _give(hand, tasks, coming)
                else:
                    hands.remove(hand)
                    _dismiss(hand)
    finally:
        for hand in hands:
            hand.process.terminate()
            _dismiss(hand)


def _hire(make: Callable[[], Work[T, R]]) -> _Hand[T]:
    context = multiprocessing.get_context("spawn")  # a fork of a process with model threads may hang
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(make, there, os.getpid()), daemon=True)
    process.start()
    there.close()
    return _Hand(process, here)


def _give(hand: _Hand[T], tasks: Sequence[T], coming: list[int]) -> None:
    hand.place = coming.pop()
    hand.pipe.send(tasks[hand.place])


def _dismiss(hand: _Hand[Any]) -> None:
    hand.pipe.close()
    hand.process.join()


def _end_of(process: BaseProcess) -> str:
    code = process.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return f"its process {how}" + (": out of memory?" if code == -signal.SIGKILL else "")


def _serve(make: Callable[[], Work[T, R]], pipe: Connection, parent: int) -> None:
    """What a process does: tasks until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    die_with(parent)
    work: Work[T, R] | None = None
    said: tuple[str, object]
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            work = work or make()
            said = "done", work(task, lambda share: pipe.send(("progress", share)))
        except CmathStreamError as error:
            said = "fatal", error
        except Exception as error:  # a fault of ours or of a library in one file must not cost the others
            said = "lost", f"unexpected {type(error).__name__}: {error}".splitlines()[0]
        pipe.send(said)
