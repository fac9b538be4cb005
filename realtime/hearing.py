"""What all participants of the process say, heard together: one task, one thread.

The detector judges many frames for little more than one, and a thread that is woken for every packet of
every participant costs more than what it does. So audio is gathered for a moment, and whoever has some by
then is heard in one go.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from realtime import telemetry
from realtime.listener import Listener, hear
from realtime.messages import AudioChunk
from realtime.segmenter import HeardFrame
from realtime.vad import VadModel

log = logging.getLogger(__name__)

Deliver = Callable[[list[HeardFrame]], None]

_GATHER_S = 0.01  # half a packet: what it adds to an answer, at most


class Ear:
    """One participant's audio on its way to the thread."""

    def __init__(self, hearing: Hearing, listener: Listener, deliver: Deliver, queue_s: float) -> None:
        """`deliver` gets the heard frames, in order, on the event loop. Audio of more than `queue_s` that
        waits is dropped, the oldest first."""
        self.listener = listener
        self.deliver = deliver
        self._hearing = hearing
        self._queue: deque[AudioChunk] = deque()
        self._queued_s = 0.0
        self._queue_s = queue_s
        self._idle = asyncio.Event()  # all that was pushed has been delivered
        self._idle.set()

    def push(self, chunk: AudioChunk) -> None:
        """Queue audio; what the thread cannot follow is counted."""
        self._queue.append(chunk)
        self._queued_s += chunk.end_s - chunk.start_s
        while self._queued_s > self._queue_s:
            self._popped()
            telemetry.FRAMES_DROPPED_TOTAL.labels(kind="audio", reason="queue_full").inc()
        self._idle.clear()
        self._hearing.attend(self)

    async def heard(self) -> None:
        """Wait until everything that was pushed has been delivered."""
        await self._idle.wait()

    def take(self) -> list[AudioChunk]:
        """What waits, as far as it is of one piece."""
        taken = [self._popped()]
        while self._queue and abs(self._queue[0].start_s - taken[-1].end_s) < 1e-6:
            taken.append(self._popped())
        return taken

    def done(self) -> None:
        """One piece was heard; there may be more."""
        if self._queue:
            self._hearing.attend(self)
        else:
            self._idle.set()

    def _popped(self) -> AudioChunk:
        chunk = self._queue.popleft()
        self._queued_s -= chunk.end_s - chunk.start_s
        return chunk


class Hearing:
    """The thread, and who waits for it."""

    def __init__(self, model: VadModel) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vad")
        self._waiting: dict[Ear, None] = {}  # in order of arrival
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def attend(self, ear: Ear) -> None:
        """Something waits in this ear."""
        self._waiting[ear] = None
        self._some.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="hearing")

    async def close(self) -> None:
        """End the thread; call it when all ears are empty."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            self._some.clear()
            ears, self._waiting = list(self._waiting), {}
            work = [(ear.listener, ear.take()) for ear in ears]
            frames = await loop.run_in_executor(self._thread, _hear, self._model, work)
            for ear, heard in zip(ears, frames, strict=True):
                try:
                    if heard:
                        ear.deliver(heard)
                except Exception as error:
                    _lost(error)
            for ear in ears:
                ear.done()
            await asyncio.sleep(_GATHER_S)


def _hear(model: VadModel, work: list[tuple[Listener, list[AudioChunk]]]) -> list[list[HeardFrame]]:
    try:
        return hear(model, [(listener, _joined(chunks)) for listener, chunks in work])
    except Exception:  # somebody's audio is no audio: that costs itself, and nobody else
        return [_heard_alone(model, listener, chunks) for listener, chunks in work]


def _heard_alone(model: VadModel, listener: Listener, chunks: list[AudioChunk]) -> list[HeardFrame]:
    frames = []
    for chunk in chunks:
        try:
            frames += hear(model, [(listener, chunk)])[0]
        except Exception as error:
            _lost(error)
    return frames


def _joined(chunks: list[AudioChunk]) -> AudioChunk:
    if len(chunks) == 1:
        return chunks[0]
    return AudioChunk(np.concatenate([chunk.pcm for chunk in chunks]), chunks[0].start_s)


def _lost(error: Exception) -> None:
    log.error("audio could not be heard: %s", type(error).__name__)  # the type alone: no words in logs
    telemetry.FRAMES_DROPPED_TOTAL.labels(kind="audio", reason="error").inc()
