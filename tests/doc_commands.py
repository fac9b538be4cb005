"""The commands of a document, run as a reader would run them.

A `console` block holds commands after `$ `, each followed by what it prints, in which a line `…` stands for
any lines. A `sh` block is run as it stands, and must succeed. Other blocks are for the eye.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```(console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY = "…"
_DONE = "-- the command is done --"
_PATIENCE_S = 120.0  # for one command


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a document."""

    line: int  # where it stands
    script: str
    prints: str | None  # standard output and error; None where the document does not say


def commands(document: Path) -> list[Command]:
    """All commands of a Markdown file, in their order."""
    text = document.read_text("utf-8")
    found = []
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(2)) + 1
        if block[1] == "sh":
            found.append(Command(line, block[2], None))
            continue
        for part in re.split(r"^(?=\$ )", block[2], flags=re.MULTILINE):
            if part.strip():
                first, _, rest = part.removeprefix("$ ").partition("\n")
                found.append(Command(line, first, rest))
            line += part.count("\n")
    return found


def run_all(document: Path, folder: Path, environ: Mapping[str, str] | None = None) -> int:
    """Run the commands of a document in `folder`, with this checkout as `cmath-stream`; how many there were.

    One shell runs them all, as a reader's would: what one of them sets, or leaves in the background, is there
    for the next. Fails, naming the line, for a command that fails or prints something else than the document
    says.
    """
    programs = folder / ".bin"
    programs.mkdir()
    program = programs / "cmath-stream"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cmath_stream "$@"\n')
    program.chmod(0o755)
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("REDIS", "CMATH_STREAM__"))
    }
    path = f"{programs}{os.pathsep}{clean.get('PATH', os.defpath)}"
    every = commands(document)
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail"],
        cwd=folder,
        env={**clean, "PATH": path, "PYTHONPATH": str(ROOT), **(environ or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        for command in every:
            printed, whole = _run(shell, command.script)
            where = f"{document.name}, line {command.line}: {command.script.strip()}"
            assert whole, f"{where}\nfailed: {printed}"
            if command.prints is not None:
                assert _fits(printed, command.prints), f"{where}\nprints\n{printed}\nnot\n{command.prints}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)  # it and what it left in the background
        shell.communicate(timeout=30)
    return len(every)


def _run(shell: subprocess.Popen[str], script: str) -> tuple[str, bool]:
    """What a command prints, and whether it came to its end; -e ends the shell where it fails."""
    assert shell.stdin is not None and shell.stdout is not None
    shell.stdin.write(f"{{ {script}\n}} </dev/null\necho {_DONE}\n")
    shell.stdin.flush()
    late = threading.Timer(_PATIENCE_S, lambda: os.killpg(shell.pid, signal.SIGKILL))
    late.start()
    try:
        printed = ""
        for line in shell.stdout:
            if line.endswith(f"{_DONE}\n"):
                return printed + line.removesuffix(f"{_DONE}\n"), True
            printed += line
        return printed, False
    finally:
        late.cancel()


def _fits(printed: str, told: str) -> bool:
    lines = [".*" if line == _ANY else re.escape(line) for line in told.rstrip("\n").split("\n")]
    return re.fullmatch("\n".join(lines), printed.rstrip("\n"), re.DOTALL) is not None
