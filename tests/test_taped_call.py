"""A real call that is recorded, and its recording replayed: the same events as live gave."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cmath_stream.call import installation
from cmath_stream.cli import app
from cmath_stream.demo import dialogue
from cmath_stream.events import Event
from cmath_stream.supervise import ROLES
from cmath_stream.watch import room_entries
from realtime.errors import SignalingError
from realtime.publish import publish
from realtime.redis_bus import RedisConfig

OF_THE_RUN = ("event_id", "session_id", "seq", "started_at", "latency_ms", "traceparent", "revision")


def settled(events: list[Event]) -> dict[tuple[str, str], Any]:
    """What both must agree on: every utterance's last word, and the session's frame."""
    found: dict[tuple[str, str], Any] = {}
    for event in events:
        if event.get("is_final") is False:
            continue
        event = {key: value for key, value in event.items() if key not in OF_THE_RUN}
        if "model" in event:
            event["model"] = {k: v for k, v in event["model"].items() if k not in ("engine", "precision")}
        name = event.get("utterance_id") or event.get("participant_id") or ""
        found[event["type"], name] = event
    return found


def numbers(value: Any) -> Any:
    """Probabilities agree within 1e-4, all else exactly."""
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-4)
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items()}
    return [numbers(each) for each in value] if isinstance(value, list) else value


async def live(environ: dict[str, str], roles: tuple[tuple[str, ...], ...]) -> list[Event]:
    people = dialogue.people()
    async with installation([], environ, roles) as up:
        whip = f"{up.http}/whip/lab"
        with pytest.raises(SignalingError, match="this room is recorded: join with consent"):
            await publish(people[0].path, f"{whip}?consent=1", participant="anna")
        agreed = f"{whip}?consent=1-recorded"
        calls = [
            publish(each.path, agreed, participant=each.participant_id, captions=each.captions)
            for each in people
        ]
        config = RedisConfig(url=up.running.redis_url)

        async def listen() -> list[Event]:
            async with aclosing(room_entries(config, "lab", "0")) as entries:
                return [event async for _, event in entries]

        listening = asyncio.create_task(listen())
        await asyncio.gather(*calls)
        async with asyncio.timeout(30):
            return await listening


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("without", [None, "audio"])
async def test_a_recorded_call_replays_to_the_events_that_live_gave(
    without: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`without`: a worker that was not there, so that every utterance goes without its modality at the
    deadline, and does so again in a replay which would have had it."""
    (tmp_path / "key").write_text("5a" * 32)
    environ = {
        "CMATH_STREAM__TAPE__FOLDER": str(tmp_path / "tapes"),
        "CMATH_STREAM__TAPE__KEY_FILE": str(tmp_path / "key"),
        "CMATH_STREAM__TAPE__ROOMS": "lab",
        "CMATH_STREAM__TEXT__WHISPER": "none",
        "CMATH_STREAM__FUSION__ASSEMBLER__FINAL_S": "3",
    }
    told = await live(environ, tuple(role for role in ROLES if role != ("worker", without)))
    (recording,) = (tmp_path / "tapes").iterdir()
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "again.jsonl"
    done = CliRunner().invoke(app, ["replay", str(recording), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "recording" not in done.output and "lack" not in done.output  # nothing to remark
    again = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    was, is_now = settled(told), settled(again)
    assert len([key for key in was if key[0] == "emotion.utterance"]) == len(dialogue.script())
    assert is_now == numbers(was)
    used = [event["modalities"]["audio"]["used"] for key, event in is_now.items() if "emotion" in key[0]]
    assert used == [without is None] * len(used)
    assert os.stat(recording).st_mode & 0o077 == 0
