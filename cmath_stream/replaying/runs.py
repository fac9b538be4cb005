"""A replay from its inputs to what is printed of it: one input, or many side by side.

Sentences for people go to standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from cmath_stream import answers
from cmath_stream.checkpoint_files import fingerprint, named
from cmath_stream.config import Settings
from cmath_stream.console import plain_line
from cmath_stream.events import Event
from cmath_stream.offline import Machines
from cmath_stream.progress import bars
from cmath_stream.replaying import batch
from cmath_stream.replaying.batch import Result, Task
from cmath_stream.replaying.feeds import Asked, open_feed
from cmath_stream.replaying.pacing import paced
from cmath_stream.replaying.score import Scoring
from cmath_stream.replaying.to_redis import Publisher, publisher
from cmath_stream.replaying.told import Told, event_file, write
from realtime.redis_bus import RedisConfig


def one(
    asked: Asked,
    settings: Settings,
    out: Path | None,
    gold: Path | None,
    speed: float | None,
    redis: RedisConfig | None,
) -> None:
    """Replay one input. Its events go to `out` and to Redis; where neither is given, to standard output.

    The score goes to standard error where the events are on standard output. Raises CmathStreamError.
    """
    scoring = None if gold is None else Scoring(gold)
    piped = out is None and redis is None
    feed, told = open_feed(asked, settings.tape), Told()
    kept: list[Event] = []
    told_in_redis: Publisher | None = None
    with ExitStack() as stack:
        shown = stack.enter_context(bars(quiet=piped and sys.stdout.isatty()))
        unit = "× real time" if feed.in_seconds else " utterances/s"
        bar = shown.add_task("replay", total=feed.total, unit=unit)
        events = told.count(feed.run(Machines(settings), lambda done: shown.update(bar, completed=done)))
        if scoring is not None:
            events = _keeping(events, kept)
        if speed is not None:
            events = paced(events, speed)
        if redis is not None:
            told_in_redis = stack.enter_context(publisher(redis))
            events = told_in_redis.passing(events)
        if piped or out is not None:
            write(events, stack.enter_context(event_file(out)), at_once=speed is not None)
        else:
            _run_out(events)
    for note in feed.notes:
        say(f"note: {note}")
    where = f" in {out}" if out else ""
    conversations = f" of {told.sessions} conversations" if told.sessions > 1 else ""
    say(f"{told.utterances} utterances{conversations}{where}")
    if told_in_redis is not None:
        if told_in_redis.known:
            say(f"{told_in_redis.known} of {len(told_in_redis.sessions)} sessions were in Redis already")
        print("\n".join(told_in_redis.sessions))
    if scoring is not None:
        picture = None if out is None else out.with_suffix(".confusion.png")
        scoring.tell(answers.answers(kept), picture, sys.stderr if piped else sys.stdout)


def each(
    tasks: Sequence[Task], settings: Settings, out: Path, jobs: int | None, gold: Path | None, *, again: bool
) -> bool:
    """Replay every input that is not finished, a line of standard output each; whether one of them failed.

    Raises CmathStreamError for what is wrong with all of them.
    """
    scoring = None if gold is None else Scoring(gold)
    fingerprint(named(settings.fusion.checkpoint))  # what is wrong with it is said once, and before the work
    left = [task for task in tasks if again or not task.out.is_file()]
    failed = [result for result in _results(left, settings, jobs) if result.told is None]
    for result in failed:
        say(f"failed: {plain_line(result.name)}: {plain_line(result.failed or '')}")
    there = len(tasks) - len(left)
    already = f", {there} there already (--again redoes them)" if there else ""
    say(f"{len(left) - len(failed)} replayed{already}, {len(failed)} failed")
    if scoring is not None:
        told = [answer for task in tasks if task.out.is_file() for answer in answers.read(task.out)]
        scoring.tell(told, out / "confusion.png", sys.stdout)
    return bool(failed)


def _results(tasks: Sequence[Task], settings: Settings, jobs: int | None) -> list[Result]:
    """What came of every task, shown as it comes."""
    width = max((len(plain_line(task.asked.name)) for task in tasks), default=0)
    processes = min(jobs or batch.most_processes(), len(tasks))
    results: list[Result] = []
    shares = [0.0] * len(tasks)
    seconds, began_s = 0.0, time.monotonic()
    with bars() as shown:
        bar = shown.add_task("", total=sum(task.size for task in tasks), unit=None)

        def progress(place: int, share: float) -> None:
            shares[place] = share
            at = sum(task.size * done for task, done in zip(tasks, shares, strict=True))
            rate = seconds / max(time.monotonic() - began_s, 1e-3)
            what = f"{len(results)}/{len(tasks)} files, {rate:.0f}× real time"
            shown.update(bar, completed=at, description=what)

        for place, result in batch.run(tasks, settings, processes, progress):
            results.append(result)
            seconds += result.told.seconds if result.told else 0.0
            progress(place, 1.0)
            line = _row(result, width)
            if sys.stdout.isatty():
                shown.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                print(line, flush=True)
    return results


def _row(result: Result, width: int) -> str:
    """One input and what came of it."""
    name = plain_line(result.name).ljust(width)
    if result.told is None:
        return f"{name}  FAILED  {plain_line(result.failed or '')}"
    notes = "".join(f"; {plain_line(note)}" for note in result.notes)
    dropped = f", {result.told.dropped} dropped" if result.told.dropped else ""
    return f"{name}  {result.told.utterances} utterances{dropped}{notes}"


def _keeping(events: Iterable[Event], kept: list[Event]) -> Iterator[Event]:
    """The same events; what a score is made of stays."""
    for event in events:
        if event["type"] in ("session.started", "emotion.utterance"):
            kept.append(event)
        yield event


def _run_out(events: Iterable[Event]) -> None:
    for _ in events:
        pass


def say(line: str) -> None:
    """A sentence for a person."""
    print(plain_line(line), file=sys.stderr)
