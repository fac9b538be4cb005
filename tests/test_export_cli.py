"""`cmath-stream export` as a user meets it: from files, standard input and Redis; and what is refused."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cmath_stream.cli import app
from cmath_stream.exports.formats import FORMATS
from realtime.errors import CmathStreamError
from realtime.redis_server import RedisServer
from tests.sessions import SESSION, lines, publish, short_call
from tests.test_cli import one_line
from tests.test_cli import run as run_program
from tests.test_export_tables import without_pyarrow


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of events, in the folder where the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)
    path = tmp_path / "call.jsonl"
    path.write_text(lines(short_call()), "utf-8")
    return path


def run(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, ["export", *arguments], input=given, catch_exceptions=False)


def refused(*arguments: str, given: str | None = None) -> str:
    with pytest.raises(CmathStreamError) as raised:
        run(*arguments, given=given)
    said = str(raised.value)
    assert "\n" not in said
    return said


def wrong_usage(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 2
    return " ".join(result.output.replace("│", " ").split())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_beside_its_source_by_default(call: Path) -> None:
    assert run("call.jsonl", "--to", "csv,vtt").exit_code == 0
    assert names(call.parent) == ["call.csv", "call.jsonl", "call.vtt"]


def test_the_suffix_tells_the_format_both_ways(call: Path) -> None:
    assert "wrote there/call.eaf" in run("call.jsonl", "--out", "there/call.eaf").output
    run("there/call.eaf", "--out", "again.JSONL")
    assert Path("again.JSONL").read_bytes() == call.read_bytes()


def test_all_of_them_into_a_folder(call: Path) -> None:
    assert run("call.jsonl", "--to", "all").exit_code == 0
    assert names(Path("call-export")) == sorted(f"call.{name}" for name in FORMATS)
    for name, form in FORMATS.items():
        if form.read and name != "rttm":
            run(f"call-export/call.{name}", "--to", "jsonl", "--out", "back.jsonl")
            assert Path("back.jsonl").read_bytes() == call.read_bytes(), name


def test_all_of_them_without_a_library_are_the_others(call: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pyarrow(monkeypatch)
    result = run("call.jsonl", "--to", "all", "--out", "out")
    assert result.exit_code == 0 and "left out out/call.parquet: Parquet needs pyarrow" in result.output
    assert names(Path("out")) == sorted(f"call.{name}" for name in FORMATS if name != "parquet")
    assert "pyarrow" in refused("call.jsonl", "--to", "csv,parquet", "--out", "out")


PIPE = [sys.executable, "-m", "cmath_stream", "export", "-", "--to", "jsonl", "--out", "-"]
ENVIRON = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}


def test_from_standard_input_to_standard_output(call: Path) -> None:
    """As one half of a pipe, through the true program: nothing but the events on standard output."""
    piped = subprocess.run(PIPE, input=call.read_bytes(), capture_output=True, env=ENVIRON, timeout=60)
    assert (piped.returncode, piped.stderr, piped.stdout) == (0, b"", call.read_bytes())


def test_who_reads_the_first_lines_alone_sees_no_error(call: Path) -> None:
    long = call.with_name("long.jsonl")
    long.write_bytes(call.read_bytes() * 40)  # more than a pipe holds
    with (
        long.open("rb") as given,
        subprocess.Popen(
            PIPE, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRON
        ) as program,
    ):
        assert program.stdout is not None and program.stderr is not None
        assert program.stdout.readline() == long.read_bytes().split(b"\n")[0] + b"\n"
        program.stdout.close()
        assert (program.stderr.read(), program.wait(60)) == (b"", 0)


def test_standard_input_is_called_so(call: Path) -> None:
    assert run("-", "--to", "rttm", given=call.read_text("utf-8")).exit_code == 0
    assert "SPEAKER events 1 0.490" in Path("events.rttm").read_text("utf-8")
    assert refused("-", "--to", "csv", given="{}\n").startswith("standard input, line 1: no emotion-event/1")


def test_recordings_are_pointed_to_from_where_the_file_lies(call: Path) -> None:
    Path("media").mkdir()
    Path("media/call.mp4").touch()
    run("call.jsonl", "--to", "html,eaf", "--out", "out", "--media", "media/call.mp4")
    assert 'src="../media/call.mp4"' in Path("out/call.html").read_text("utf-8")
    assert 'RELATIVE_MEDIA_URL="../media/call.mp4"' in Path("out/call.eaf").read_text("utf-8")


def test_of_a_feed_one_session_is_chosen(call: Path) -> None:
    other = [{**event, "session_id": "other"} for event in short_call()]
    call.write_text(
        lines([event for pair in zip(short_call(), other, strict=True) for event in pair]), "utf-8"
    )
    assert "events of 2 sessions" in refused("call.jsonl", "--to", "vtt")
    assert not Path("call.vtt").exists() and not Path("call.vtt.partial").exists()
    run("call.jsonl", "--to", "jsonl", "--session", SESSION[:8], "--out", "one.jsonl")
    assert Path("one.jsonl").read_text("utf-8") == lines(short_call())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["call.jsonl"], "which of jsonl, csv"),
        (["call.jsonl", "--out", "call.xyz"], "which of jsonl, csv"),
        (["call.jsonl", "--to", "docx"], "'docx' is none of"),
        (["call.jsonl", "--to", "csv,all"], "'all' is none of"),
        (["call.jsonl", "--to", "csv,vtt", "--out", "-"], "several formats need a folder"),
        (["call.jsonl", "--to", "csv,vtt", "--out", "call.jsonl"], "several formats need a folder"),
        (["call.jsonl", "--to", "jsonl"], "would be written over"),
        (["call.jsonl", "--to", "csv", "--out", "call.jsonl"], "would be written over"),
        (["call.jsonl", "--to", "csv", "--media", "call.jsonl"], "only html and eaf point to a recording"),
        (["call.jsonl", "--to", "html", "--media", "none.mp4"], "does not exist"),
    ],
)
def test_wrong_usage_is_said_and_changes_nothing(call: Path, arguments: Sequence[str], said: str) -> None:
    assert said in wrong_usage(*arguments)
    assert names(call.parent) == ["call.jsonl"] and call.read_text("utf-8") == lines(short_call())


def test_what_cannot_be_read_is_one_line(call: Path) -> None:
    Path("call.png").touch()
    assert "png is for the eye alone" in refused("call.png", "--to", "csv")
    assert refused("none.csv", "--to", "jsonl") == "none.csv: there is no such file"
    assert "there is no file demo, and for a session: which Redis?" in refused("demo", "--to", "jsonl")
    call.write_text(lines(short_call())[:-30], "utf-8")
    assert "call.jsonl, line 18: not JSON" in one_line(run_program("export", str(call), "--out", "call.csv"))
    assert names(call.parent) == ["call.jsonl", "call.png"]


def test_a_session_of_redis_by_its_room_or_the_beginning_of_its_id(
    call: Path, own_server: RedisServer
) -> None:
    asyncio.run(publish(own_server.url))
    for name in ("demo", SESSION[:8], SESSION):
        assert run(name, "--to", "jsonl", "--redis", own_server.url).exit_code == 0
        assert Path(f"{SESSION}.jsonl").read_bytes() == call.read_bytes()
        Path(f"{SESSION}.jsonl").unlink()
    assert "no session or room 'nobody'" in refused("nobody", "--to", "csv", "--redis", own_server.url)
