"""One recorded session on its way to the disk: gathered into pieces, which a thread seals and writes.

Nobody waits for the thread: a slow disk must not be heard. What cannot be kept ends the tape, never the call.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress

from realtime import tape
from realtime.sealed import SealedWriter

log = logging.getLogger(__name__)

_PIECE_BYTES = 64 * 1024  # sealed at once
_PIECE_S = 1.0  # and at least so often: what a crash may cost
_MOST_WAITING = 256  # pieces that the disk is behind: 16 MB
_LAST_S = 30.0  # for the last answers, after a session has closed


class Tape:
    """One file being written."""

    def __init__(self, make: Callable[[], SealedWriter], thread: Executor, name: str) -> None:
        """`thread` runs one thing at a time, `make` first; `name` is for the log."""
        self._thread = thread
        self._name = name
        self._piece = bytearray()
        self._begun_s = 0.0  # when the first entry of the piece came
        self._under_way: deque[Future[None]] = deque()
        self._file: SealedWriter | None = None  # the thread's
        self._over = False  # nothing is taken any more
        self._failed = False
        self._closed = False  # the conversation, of which nothing more can come
        self.until_s = float("inf")  # monotonic time until which answers may come
        self._submit(lambda: self._begin(make))

    def put(self, entry: tape.Entry) -> None:
        """Append; never waits, never raises."""
        if self._over:
            return
        if isinstance(entry, tape.Closed):
            self._closed, self.until_s = True, time.monotonic() + _LAST_S
        if not self._piece:
            self._begun_s = time.monotonic()
        self._piece += tape.to_bytes(entry)
        if len(self._piece) >= _PIECE_BYTES or time.monotonic() - self._begun_s >= _PIECE_S:
            self._send()

    def end(self) -> None:
        """Nothing follows. The thread writes the end, if the conversation has one."""
        if self._over:
            return
        self._send()
        self._over = True
        self._submit(self._close if self._closed else self._abandon)

    def _send(self) -> None:
        piece, self._piece = bytes(self._piece), bytearray()
        if piece:
            self._submit(lambda: self._write(piece))

    def _submit(self, work: Callable[[], None]) -> None:
        while self._under_way and self._under_way[0].done():
            self._under_way.popleft()
        if len(self._under_way) >= _MOST_WAITING:
            self._give_up("the disk cannot follow")
            work = self._abandon
        with suppress(RuntimeError):  # the thread has been shut down
            self._under_way.append(self._thread.submit(self._try, work))

    def _give_up(self, why: str) -> None:
        if not self._failed:
            log.error("the recording of session %s ends here: %s", self._name, why)
        self._failed = self._over = True

    # ---- in the thread

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self._give_up(error.strerror or str(error))
            self._abandon()

    def _begin(self, make: Callable[[], SealedWriter]) -> None:
        self._file = make()

    def _write(self, piece: bytes) -> None:
        if self._file is not None:
            self._file.write(piece)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            log.info("session %s: its recording is whole", self._name)

    def _abandon(self) -> None:
        if self._file is not None:
            self._file.abandon()
            self._file = None
