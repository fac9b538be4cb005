"""The program as a user meets it: help, exit codes, and errors of one line that say what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cmath_stream.config import Settings, load_settings
from realtime.grants import Grant
from realtime.settings import to_dict
from realtime.tokens import JwtConfig, Verifier

DEMO = Path("cmath_stream/demo")


def run(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("REDIS", "CMATH_STREAM__"))
    }
    return subprocess.run(
        [sys.executable, "-m", "cmath_stream", *arguments],
        env={**clean, **(environ or {})}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1 and "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("cmath-stream: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_help_names_every_command() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for command in (
        "up",
        "serve",
        "worker",
        "publish",
        "replay",
        "compare",
        "export",
        "tail",
        "demo",
        "bench",
        "doctor",
        "schema",
        "config",
        "token",
        "session",
        "dlq",
    ):
        assert f"│ {command} " in shown.stdout


def test_wrong_usage_is_exit_code_two() -> None:
    assert run("worker", "smell").returncode == 2
    assert run("publish").returncode == 2


def test_schema_print_is_the_published_schema() -> None:
    assert json.loads(run("schema", "print").stdout)["$id"].endswith("emotion-event/1")


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[ingest]\nprot = 1\n")
    said = one_line(run("--config", str(file), "config", "show"))
    assert "ingest.prot" in said and "port" in said
    said = one_line(run("config", "show", environ={"CMATH_STREAM__SESSION__LINGERS": "1"}))
    assert "session.lingers" in said
    assert "No such file" in one_line(run("--config", str(tmp_path / "none.toml"), "config", "show"))


def test_config_show_hides_what_is_secret() -> None:
    secrets = {
        "CMATH_STREAM__INGEST__TOKEN": "s3cret-token",
        "CMATH_STREAM__INGEST__JWT__SECRET": "s3cret" + "." * 32,
        "CMATH_STREAM__INGEST__TURN__SECRET": "s3cret",
    }
    shown = run("config", "show", environ=secrets)
    assert "s3cret" not in shown.stdout
    ingest = json.loads(shown.stdout)["ingest"]
    assert ingest["token"] == ingest["jwt"]["secret"] == ingest["turn"]["secret"] == "***"


def test_token_mint_prints_one_token_that_is_taken(tmp_path: Path) -> None:
    secret = "a-secret-of-thirty-two-bytes-or-more"
    wants = ("--room", "demo", "--action", "publish", "--action", "subscribe", "--purpose", "research")
    minted = run("token", "mint", *wants, environ={"CMATH_STREAM__INGEST__JWT__SECRET": secret})
    assert (minted.returncode, minted.stderr, minted.stdout.count("\n")) == (0, "", 1)
    grant = Verifier(JwtConfig(secret=secret)).verify(minted.stdout.strip())
    assert grant == Grant("demo", frozenset({"publish", "subscribe"}), "research")
    file = tmp_path / "x.toml"
    file.write_text(f'[ingest.jwt]\nsecret = "{secret}"\naudience = "here"\n')
    minted = run(
        "--config", str(file), "token", "mint", "--room", "*", "--action", "subscribe", "--minutes", "5"
    )
    here = Verifier(JwtConfig(secret=secret, audience="here"))
    assert here.verify(minted.stdout.strip()) == Grant("*", frozenset({"subscribe"}))


def test_token_mint_says_what_is_missing() -> None:
    said = one_line(run("token", "mint", "--room", "demo", "--action", "publish"))
    assert "CMATH_STREAM__INGEST__JWT__SECRET" in said
    short = {"CMATH_STREAM__INGEST__JWT__SECRET": "much-too-short"}
    said = one_line(run("token", "mint", "--room", "demo", "--action", "publish", environ=short))
    assert "32 bytes" in said and "much-too-short" not in said
    enough = {"CMATH_STREAM__INGEST__JWT__SECRET": "." * 32}
    said = one_line(run("token", "mint", "--room", "a room", "--action", "publish", environ=enough))
    assert "room name" in said
    for wrong in (("--action", "fly"), (), ("--action", "publish", "--minutes", "61")):
        assert run("token", "mint", "--room", "demo", *wrong, environ=enough).returncode == 2


@pytest.mark.parametrize("name", ["live.toml", "replay.toml"])
def test_the_shipped_settings_are_the_defaults(name: str) -> None:
    assert to_dict(load_settings(Path("configs") / name)) == to_dict(Settings())


def test_no_redis_is_said_with_what_to_do() -> None:
    assert "--redis URL" in one_line(run("tail"))
    said = one_line(run("serve", "--redis", "redis://127.0.0.1:1/0"))
    assert "Redis does not answer" in said


def test_an_open_door_needs_a_token(redis_url: str) -> None:
    said = one_line(run("serve", "--redis", redis_url, environ={"CMATH_STREAM__INGEST__HOST": "0.0.0.0"}))
    assert "token" in said


def test_serve_says_where_the_page_is(redis_url: str) -> None:
    environ = {
        **os.environ,
        "CMATH_STREAM__INGEST__PORT": "0",
        "CMATH_STREAM__INGEST__TOKEN": "a-token-of/sixteen-or-more",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cmath_stream", "serve", "--redis", redis_url],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert "page:  http://127.0.0.1:0/\n" in said
        assert "sixteen-or-more" not in said  # what is no terminal is kept as a log
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("name", "content"), [("none.wav", None), ("empty.wav", b""), ("text.mp4", b"not a film" * 99)]
)
def test_unreadable_media_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert name in one_line(run("replay", str(tmp_path / name)))
    assert name in one_line(run("publish", str(tmp_path / name), "--whip", "http://127.0.0.1:1/whip/r"))


def test_a_server_that_is_not_there_is_said() -> None:
    said = one_line(run("publish", str(DEMO / "anna.opus"), "--whip", "http://127.0.0.1:1/whip/r"))
    assert "127.0.0.1:1" in said


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.json"
    path.write_text('{"format": 9}')
    path.with_suffix(".safetensors").write_bytes(b"nothing")
    said = one_line(
        run("replay", str(DEMO / "anna.opus"), environ={"CMATH_STREAM__FUSION__CHECKPOINT": str(path)})
    )
    assert "foreign.json" in said


def test_captions_that_are_none_are_named_with_their_line(tmp_path: Path) -> None:
    words = tmp_path / "words.json"
    words.write_text('[{"start_ms": 0}]')
    assert "words.json" in one_line(run("replay", str(DEMO / "anna.opus"), "--captions", str(words)))


@pytest.mark.slow
def test_replay_gives_meaning_to_the_demo(tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    result = run(
        "replay", str(DEMO / "anna.opus"), str(DEMO / "ben.opus"), "--out", str(out),
        "--captions", str(DEMO / "anna.captions.json"), "--captions", str(DEMO / "ben.captions.json"),
        environ={"CMATH_STREAM__TEXT__WHISPER": "none"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    emotions = [
        e for e in map(json.loads, out.read_text("utf-8").splitlines()) if e["type"] == "emotion.utterance"
    ]
    assert len(emotions) == 16
    assert len({e["label"] for e in emotions} - {None}) >= 3


@pytest.mark.slow
def test_eval_prints_its_figures_as_the_last_line(tmp_path: Path) -> None:
    lines = [
        {"utterance": n, "speaker": "ab"[n % 2], "text": text, "emotion": emotion}
        for n, (text, emotion) in enumerate(
            [("I am so happy!", "joy"), ("Leave me alone!", "anger"), ("Okay.", "neutral")]
        )
    ]
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps({"dialogue": "d", "utterances": lines}) + "\n")
    result = run("eval", "erc-text", str(path), environ={"XDG_CACHE_HOME": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["n"] == 3 and figures["checkpoint"].startswith("live-small") and 0 <= figures["ece"] <= 1
    path.write_text("{}")
    assert "talk.jsonl" in one_line(
        run("eval", "erc-text", str(path), environ={"XDG_CACHE_HOME": str(tmp_path)})
    )


@pytest.mark.slow
def test_doctor_reports_a_line_each(tmp_path: Path) -> None:
    result = run("doctor", environ={"CMATH_STREAM__INGEST__PORT": "0"})
    assert result.returncode == 0, result.stdout + result.stderr
    names = "python redis clock port ice tape fusion encoders speech gpu tensorrt compiler".split()
    assert [line.split()[1] for line in result.stdout.splitlines()] == names
