"""docs/REPLAY.md: every command in it works, and prints what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from realtime.redis_server import RedisServer
from tests.replay_files import make

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Every command and the lines that it prints; `…` stands for any."""
    found = []
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            first, *lines = part.splitlines()
            found.append((first, lines))
    return found


def fits(printed: str, told: list[str]) -> bool:
    lines = [".*" if line == "…" else re.escape(line).replace("…", ".*") for line in told]
    shown = "\n".join(line.rstrip() for line in printed.rstrip("\n").split("\n"))
    return re.fullmatch("\n".join(lines), shown, re.DOTALL) is not None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_works_and_prints_what_it_says(tmp_path: Path, own_server: RedisServer) -> None:
    make(tmp_path)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "cmath-stream"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cmath_stream "$@"\n')
    program.chmod(0o755)
    environ = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": own_server.url,
        "CMATH_STREAM__TEXT__WHISPER": "none",
        "COLUMNS": "80",
    }
    every = commands((ROOT / "docs/REPLAY.md").read_text("utf-8"))
    assert len(every) >= 15
    for script, told in every:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path, env=environ, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        assert fits(done.stdout, told), f"{script}\nprints\n{done.stdout}\nnot\n" + "\n".join(told)


def test_the_check_itself_can_fail() -> None:
    assert commands("```console\n$ one\na\n…\n$ two\n```\n") == [("one", ["a", "…"]), ("two", [])]
    assert fits("a\nb\nc\n", ["a", "…"]) and fits("x 0.1 y \n", ["x … y"])
    assert not fits("a\nb\n", ["a"]) and not fits("ab\n", ["a…c"])
