"""All recordings at hand through `replay --each`: each has its line, speech is found where it was marked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmath_stream import answers
from cmath_stream.scoring import SegmentationScore, score
from cmath_stream.sources.names import participant_name
from realtime import rttm
from realtime.rttm import Turn
from tests.test_cli import run

pytestmark = pytest.mark.slow
WORDS = {"CMATH_STREAM__TEXT__WHISPER": "none"}
SILENT = ("expressions/d18.mp4", "expressions/d19.mp4", "expressions/d9.mp4", "expressions/s20.mp4")  # music


def rows(stdout: str) -> dict[str, str]:
    return {line.split("  ")[0]: " ".join(line.split("  ")[1:]).strip() for line in stdout.splitlines()}


def test_every_clip_is_replayed_or_says_why_not(data_dir: Path, tmp_path: Path) -> None:
    clips, out = data_dir / "clips", tmp_path / "out"
    result = run("replay", "--each", str(clips), "--out", str(out), environ=WORDS)
    table = rows(result.stdout)
    media = {
        path.relative_to(clips).as_posix()
        for path in clips.rglob("*")
        if path.suffix in (".mp4", ".mpg", ".opus", ".flac", ".wav")
    }
    assert set(table) == media and len(media) == 35
    failed = {name: why for name, why in table.items() if why.startswith("FAILED")}
    assert list(failed) == ["expressions/d0.mp4"] and "has no audio" in failed["expressions/d0.mp4"]
    assert result.returncode == 1 and "34 replayed, 1 failed" in result.stderr
    for name in media - set(failed):
        said = answers.read(out / f"{name}.jsonl")
        assert table[name].startswith(f"{len(said)} utterances"), name
        assert bool(said) == (name not in SILENT), name
    nobody_seen = (out / "no_face/nasa_13013.mp4.jsonl").read_text("utf-8")
    assert '"visual":{"used":false,"reason":"no_face"' in nobody_seen
    seen = (out / "talkers/WDA_AlexandriaOcasioCortez_000.mp4.jsonl").read_text("utf-8")
    assert '"visual":{"used":true' in seen


def test_meetings_with_their_turns_meet_the_marks_of_segmentation(data_dir: Path, tmp_path: Path) -> None:
    meeting, out = data_dir / "clips/meeting", tmp_path / "out"
    turns = meeting / "train.rttm"
    result = run("replay", "--each", str(meeting), "--turns", str(turns), "--out", str(out), environ=WORDS)
    assert result.returncode == 0, result.stderr
    assert "turns overlap" in rows(result.stdout)["trn04.flac"]
    total = SegmentationScore()
    for path in sorted(meeting.glob("*.flac")):
        marked = [
            Turn(participant_name(turn.speaker), turn.start_s, turn.end_s)
            for turn in rttm.read(turns, path.stem)
        ]
        said = answers.read(out / f"{path.name}.jsonl")
        found = [Turn(each.participant_id, each.start_ms / 1000, each.end_ms / 1000) for each in said]
        total += score(found, marked)
    assert total.coverage >= 0.90, total
    assert total.non_speech <= 0.15, total
    assert total.onset_recall >= 0.80, total
    assert total.overlong == 0, total
