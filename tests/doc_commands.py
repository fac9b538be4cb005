"""The commands of a document, run as a reader would run them.

A `console` block holds commands after `$ `, each followed by what it prints, in which a line `…` stands for
any lines. A `sh` block is run as it stands, and must succeed. Other blocks are for the eye.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```(console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY = "…"


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

    Fails, naming the line, for a command that fails or prints something else than the document says.
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
    for command in every:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.script],
            cwd=folder,
            env={**clean, "PATH": path, "PYTHONPATH": str(ROOT), **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
        )
        where = f"{document.name}, line {command.line}: {command.script.strip()}"
        assert done.returncode == 0, f"{where}\nfailed: {done.stdout}"
        if command.prints is not None:
            assert _fits(done.stdout, command.prints), (
                f"{where}\nprints\n{done.stdout}\nnot\n{command.prints}"
            )
    return len(every)


def _fits(printed: str, told: str) -> bool:
    lines = [".*" if line == _ANY else re.escape(line) for line in told.rstrip("\n").split("\n")]
    return re.fullmatch("\n".join(lines), printed.rstrip("\n"), re.DOTALL) is not None
