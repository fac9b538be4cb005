"""Every command that README and docs/ name is there, with these options; and the live ones work.

What docs/EXPORT.md, docs/REPLAY.md and docs/RECORD.md show is run as it stands, by tests of their own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cmath_stream.cli import app
from tests.doc_commands import ROOT, run_all

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_OURS = re.compile(r"(?:^|[`$(|;&] ?)\s*(cmath-stream(?: [^`#)]*)?)", re.MULTILINE)
_BENCH = re.compile(r"python -m (bench[\w.]*)([^`#\n]*)")
_OPEN_ENDED = re.compile(r"[|…<>]|\.\.\.")  # alternatives, and what stands for more


def told(text: str) -> Iterator[str]:
    """The command lines of ours in a document, as they would be typed."""
    text = text.replace("\\\n", " ")
    for found in _OURS.finditer(text):
        line = found[1].splitlines()[0].strip()
        line = re.split(r" (?:>|&|\||2>|;)", line)[0].split(";")[0]
        alternatives = re.search(r"\S*\w\|\w\S*", line)
        for each in alternatives[0].split("|") if alternatives else [""]:
            yield line.replace(alternatives[0], each) if alternatives else line


def commands() -> list[tuple[str, str]]:
    return sorted({(path.name, line) for path in DOCUMENTS for line in told(path.read_text("utf-8"))})


def unknown(line: str) -> str | None:
    """What of a command line the program does not have."""
    words = [word for word in shlex.split(line)[1:] if not _OPEN_ENDED.search(word)]
    command: Any = typer.main.get_command(app)
    known = {"--help"}
    while True:
        known |= {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        if not hasattr(command, "commands"):
            break
        takes = {name for each in command.params if not getattr(each, "is_flag", True) for name in each.opts}
        while words and words[0].startswith("-"):
            option = words.pop(0)
            if option not in known:
                return option
            if option in takes:
                words.pop(0)
        if not words:
            return None
        name = words.pop(0)
        if name not in command.commands:
            return name
        command = command.commands[name]
    options = (word.split("=")[0] for word in words if re.match(r"--?[a-z]", word))
    return next((option for option in options if option not in known), None)


@pytest.mark.parametrize(("document", "line"), commands())
def test_there_is_such_a_command_with_these_options(document: str, line: str) -> None:
    missing = unknown(line)
    assert missing is None, f"{document}: `{line}`: there is no {missing}"


def test_the_check_itself_can_fail() -> None:
    assert unknown("cmath-stream replays a.opus") == "replays"
    assert unknown("cmath-stream replay a.opus --caption b.vtt") == "--caption"
    assert unknown("cmath-stream --confg x up") == "--confg"
    assert unknown("cmath-stream --config x.toml session show R --json") is None
    assert len(commands()) > 50
    assert list(told("so `cmath-stream engine build|info` and $ cmath-stream tail > a")) == [
        "cmath-stream engine build", "cmath-stream engine info", "cmath-stream tail",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_programs_of_bench_take_what_the_documents_say() -> None:
    asked: dict[str, set[str]] = {}
    for path in DOCUMENTS:
        for module, rest in _BENCH.findall(path.read_text("utf-8")):
            asked.setdefault(module.rstrip("."), set()).update(re.findall(r"--[a-z-]+", rest))
    assert len(asked) > 5
    for module, options in asked.items():
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{module}: {done.stderr}"
        assert not (lacking := {each for each in options if each not in done.stdout}), f"{module}: {lacking}"


# ---- live


def recordings(folder: Path) -> None:
    """The files that the documents name."""
    demo = ROOT / "cmath_stream/demo"
    for name in ("anna.opus", "ben.opus", "anna.captions.json", "ben.captions.json"):
        shutil.copy(demo / name, folder)
    shutil.copy(demo / "ben.opus", folder / "ben.mp4")  # its content is what counts
    (folder / "talk.vtt").write_text(
        "WEBVTT\n\n00:00.650 --> 00:02.700\n<v anna>The mail came this morning.\n"
    )


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def here(text: str, port: str) -> str:
    """A document as it would be read on this machine."""
    return text.replace("127.0.0.1:8080", f"127.0.0.1:{port}")


@contextmanager
def up(folder: Path, port: str) -> Iterator[str]:
    """`cmath-stream up`; inside it is ready. Gives the URL of its Redis."""
    environ = {
        **os.environ, "CMATH_STREAM__INGEST__PORT": port, "CMATH_STREAM__INGEST__LOOPBACK_ONLY": "1",
        "CMATH_STREAM__TEXT__WHISPER": "none", "CMATH_STREAM__SESSION__LINGER_S": "1",
    }  # fmt: skip
    running = subprocess.Popen(
        [sys.executable, "-m", "cmath_stream", "up"],
        cwd=folder, env={**environ, "PYTHONPATH": str(ROOT)}, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    with running:
        try:
            assert running.stdout is not None
            yield next(line.split("--redis ")[1].strip() for line in running.stdout if "--redis " in line)
        finally:
            running.send_signal(signal.SIGINT)


def blocks(document: str, kind: str) -> list[str]:
    text = (ROOT / document).read_text("utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(400)
def test_who_publishes_and_who_subscribes_as_the_documents_say_meet(tmp_path: Path) -> None:
    recordings(tmp_path)
    port = free_port()
    publishes = [
        block for document in ("README.md", "docs/PUBLISH.md")
        for block in blocks(document, "") if block.startswith("cmath-stream publish")
    ]  # fmt: skip
    readme, (one, shared) = blocks("README.md", "python"), blocks("docs/SUBSCRIBE.md", "python")
    (curl,) = [block for block in blocks("docs/SUBSCRIBE.md", "") if block.startswith("curl")]
    assert (len(publishes), len(readme)) == (2, 1)
    environ = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TOKEN": "",
    }  # fmt: skip
    program = tmp_path / "cmath-stream"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cmath_stream "$@"\n')
    program.chmod(0o755)
    heard: dict[str, Path] = {}

    def follow(name: str, command: list[str]) -> subprocess.Popen[str]:
        heard[name] = tmp_path / f"{name}.out"
        with heard[name].open("w") as out:
            return subprocess.Popen(command, cwd=tmp_path, env=environ, text=True, stdout=out, stderr=out)

    with up(tmp_path, port) as redis_url:
        publisher = subprocess.Popen(here(publishes[0], port), shell=True, cwd=tmp_path, env=environ)
        followers = [
            follow("consume", [sys.executable, "-c", shared.replace("redis://127.0.0.1:6379/0", redis_url)]),
            follow("tail", [str(program), "tail", "--json", "--redis", redis_url]),
        ]
        deadline_s = time.monotonic() + 30
        while '"session.started"' not in heard["tail"].read_text() and time.monotonic() < deadline_s:
            time.sleep(0.1)
        text = here(readme[0], port).replace('"ROOM"', '"demo"')
        followers += [
            follow("README", [sys.executable, "-c", text]),
            follow("subscribe", [sys.executable, "-c", here(one, port)]),
            follow("curl", ["bash", "-c", here(curl, port)]),
        ]
        try:
            assert publisher.wait(120) == 0
            again = here(publishes[1], port)
            assert subprocess.run(again, shell=True, cwd=tmp_path, env=environ, timeout=120).returncode == 0
            deadline_s = time.monotonic() + 20
            while time.monotonic() < deadline_s and not all(map(told_something, heard.values())):
                time.sleep(0.2)
        finally:
            for each in followers:
                each.kill()
                each.wait()
    assert {name: told_something(path) for name, path in heard.items()} == dict.fromkeys(heard, True)
    assert '"type":"emotion.utterance"' in heard["tail"].read_text()


def told_something(path: Path) -> bool:
    """Something of Anna."""
    text = path.read_text()
    return "anna" in text and "Traceback" not in text


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(400)
def test_a_session_is_recorded_and_replayed_as_the_document_says(tmp_path: Path) -> None:
    recordings(tmp_path)
    port = free_port()
    document = tmp_path / "RECORD.md"
    document.write_text(here((ROOT / "docs/RECORD.md").read_text("utf-8"), port), "utf-8")
    environ = {
        "CMATH_STREAM__INGEST__PORT": port,
        "CMATH_STREAM__TEXT__WHISPER": "none",
        "CMATH_STREAM__SESSION__LINGER_S": "1",
    }
    assert run_all(document, tmp_path, environ) == 3
    live, again = ((tmp_path / f"{name}.jsonl").read_text("utf-8").splitlines() for name in ("live", "again"))
    finals = [json.loads(line) for line in live if '"is_final":true' in line]
    assert len(finals) == 8
    retold = [json.loads(line) for line in again if '"type":"emotion.utterance"' in line]
    assert [each["label"] for each in retold] == [each["label"] for each in finals]
