"""docs/EXPORT.md: every command in it works, and prints what it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cmath_stream.exports.columns import columns_for
from cmath_stream.exports.formats import FORMATS
from realtime.redis_server import RedisServer
from tests.doc_commands import ROOT, commands, run_all
from tests.sessions import lines, publish, short_call

DOCUMENT = ROOT / "docs" / "EXPORT.md"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_works_and_prints_what_it_says(tmp_path: Path, own_server: RedisServer) -> None:
    (tmp_path / "call.jsonl").write_text(lines(short_call()), "utf-8")
    (tmp_path / "call.mp4").touch()
    asyncio.run(publish(own_server.url))
    assert run_all(DOCUMENT, tmp_path, {"REDIS_URL": own_server.url}) >= 8


def test_every_format_and_column_is_told() -> None:
    text = DOCUMENT.read_text("utf-8")
    for name in FORMATS:
        assert f"| `{name}` |" in text
    for column in columns_for(short_call()).kinds:
        plain = column.replace("_joy", "_EMOTION") if column.endswith("_joy") else column
        assert column.rpartition("_")[2] in (
            "neutral",
            "surprise",
            "fear",
            "sadness",
            "disgust",
            "anger",
        ) or (f"`{plain}`" in text), column


# ---- the runner of commands itself -------------------------------------------------------------------


def document(folder: Path, text: str) -> Path:
    path = folder / "DOC.md"
    path.write_text(text, "utf-8")
    return path


def test_commands_are_found_with_what_they_print(tmp_path: Path) -> None:
    text = "a\n```console\n$ echo 1\n1\n$ true\n```\n```python\nno\n```\n```sh\nx=1\ntest $x = 1\n```\n"
    found = [(command.line, command.script, command.prints) for command in commands(document(tmp_path, text))]
    assert found == [(3, "echo 1", "1\n"), (5, "true", ""), (11, "x=1\ntest $x = 1\n", None)]
    assert run_all(document(tmp_path, text), tmp_path) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```console\n$ echo one\ntwo\n```\n", r"DOC.md, line 2: echo one\nprints\none"),
        ("```console\n$ echo a; echo b; echo c\na\n…\nd\n```\n", "prints"),
        ("\n```sh\nfalse | true\n```\n", "DOC.md, line 3: false"),
    ],
)
def test_a_command_that_does_otherwise_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        run_all(document(tmp_path, text), tmp_path)


def test_lines_may_be_left_out(tmp_path: Path) -> None:
    assert (
        run_all(document(tmp_path, "```console\n$ seq 9; cmath-stream --help\n1\n…\n9\n…\n```\n"), tmp_path)
        == 1
    )
