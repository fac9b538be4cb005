"""CSV and Parquet as people and their tools meet them, and as they come back damaged."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from cmath_stream.exports import csv_table, jsonl, parquet
from cmath_stream.exports.about import About
from realtime.errors import MediaError, SettingsError
from tests.sessions import Event, copied, short_call

ABOUT = About("call")


def table(events: list[Event]) -> tuple[str, list[dict[str, str]]]:
    """The text of a CSV, and its rows as another reader has them."""
    file = io.BytesIO()
    csv_table.write(events, file, ABOUT)
    text = file.getvalue().decode()
    return text, list(csv.DictReader(io.StringIO(text, newline="")))


def utterances(rows: list[Any]) -> list[Any]:
    return [row for row in rows if row["type"] == "emotion.utterance"]


def reading(text: str, folder: Path) -> list[Event]:
    path = folder / "call.csv"
    path.write_bytes(text.encode())
    return list(csv_table.read(path))


def test_a_row_tells_who_said_what_and_how() -> None:
    _, rows = table(short_call())
    first, *_, unsure = utterances(rows)
    assert first["participant_id"] == "anna" and first["text"] == "Hi Ben. The mail came this morning."
    assert (first["start_ms"], first["end_ms"], first["is_final"]) == ("490", "2838", "true")
    assert (first["label"], first["abstained"], first["confidence"]) == ("neutral", "false", "0.76")
    assert (first["p_neutral"], first["p_joy"]) == ("0.76", "0.04")
    assert (first["text_used"], first["text_p_neutral"], first["audio_p_neutral"]) == ("true", "0.7", "0.64")
    assert (first["visual_used"], first["visual_reason"]) == ("false", "no_video")
    assert first["model_version"] == "live-small-2" and first["rest"] == ""  # everything has a column
    assert (unsure["label"], unsure["text"], unsure["confidence"]) == ("", "", "0.2")
    assert len(rows) == len(short_call())


@pytest.mark.parametrize("words", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "'quoted'"])
def test_words_are_no_formula_and_come_back(words: str, tmp_path: Path) -> None:
    events = copied(short_call())
    for event in events:
        if event["type"] == "emotion.utterance":
            event["text"] = event["participant_id"] = event["label"] = words
    text, rows = table(events)
    for row in utterances(rows):
        for column in ("text", "participant_id", "label"):
            assert row[column] == f"'{words}"
    assert reading(text, tmp_path) == events


def test_no_separator_but_the_comma_makes_cells() -> None:
    """Where a spreadsheet cuts at semicolons, it does not cut inside quotes."""
    events = copied(short_call())[-1:]
    events[0]["reason"] = "a;=1+1"
    text, _ = table(events)
    assert ',"a;=1+1",' in text


def test_an_emotion_of_any_name_is_no_formula_in_the_head() -> None:
    events = copied(short_call())
    for event in utterances(events):
        event["emotions"][0]["name"] = "=cmd"
    text, _ = table(events)
    assert '"p_=cmd"' in text.splitlines()[0] and not any(
        name.startswith(("=", "+", "-", "@")) for name in next(csv.reader([text.splitlines()[0]]))
    )


def test_what_a_spreadsheet_does_to_a_table_is_no_damage(tmp_path: Path) -> None:
    """Saved again by pandas or a spreadsheet: other bools, fractions, a mark, columns more and moved."""
    text, rows = table(short_call())
    names = list(reversed(rows[0]))
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([*names, "my note"])
    for row in rows:
        cells = [row[name] for name in names]
        changed = [{"true": "TRUE", "false": "False"}.get(cell, cell) for cell in cells]
        changed[names.index("end_ms")] += ".0" if row["end_ms"] else ""
        writer.writerow([*changed, "mine"])
    read = reading("\ufeff" + out.getvalue(), tmp_path)
    lists = [{**event, "emotions": None, "modalities": None} for event in read]  # their order is the columns'
    assert lists == [{**event, "emotions": None, "modalities": None} for event in short_call()]
    assert all(isinstance(event["end_ms"], int) for event in read if "end_ms" in event)


def test_a_corrected_cell_is_a_corrected_event(tmp_path: Path) -> None:
    text, _ = table(short_call())
    read = reading(text.replace('"Hi Ben. The mail came this morning."', '"Hi, Ben."'), tmp_path)
    assert utterances(read)[0]["text"] == "Hi, Ben."


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: "a,b\r\n1,2\r\n", "no table of events by cmath-stream"),
        (lambda text: text.replace(",490,", ",soon,", 1), "line 5, start_ms: 'soon' is no int"),
        (lambda text: text.replace(",true,", ",perhaps,", 1), "line 7, is_final: 'perhaps' is no bool"),
        (lambda text: text.replace(",2838,", ",", 1), "line 6: .* cells, not"),
        (lambda text: text.replace('"session.started"', '"session.begun"'), "line 2: .*'session.begun'"),
        (lambda text: text.replace('"{""consent"":null}"', '"{""consent"":}"'), "line 3, rest: not JSON"),
        (lambda text: text.replace('"{""consent"":null}"', "[]"), "line 3, rest: not a JSON object"),
        (lambda text: text[:-30], "line 19: not CSV"),
    ],
)
def test_damage_is_named_with_its_line(damage: Any, said: str, tmp_path: Path) -> None:
    text, _ = table(short_call())
    assert damage(text) != text
    with pytest.raises(MediaError, match=f"call.csv[:,] {said}"):
        reading(damage(text), tmp_path)


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "call.csv").write_bytes(b"type\xff\xfe\x00")
    with pytest.raises(MediaError, match="not UTF-8"):
        list(csv_table.read(tmp_path / "call.csv"))


def test_parquet_has_types(tmp_path: Path) -> None:
    path = tmp_path / "call.parquet"
    with path.open("wb") as file:
        parquet.write(short_call(), file, ABOUT)
    found = pyarrow.parquet.read_table(path, filters=[("is_final", "=", True)])
    assert found.num_rows == 4
    kinds = {field.name: str(field.type) for field in found.schema}
    assert kinds["start_ms"] == "int64" and kinds["p_joy"] == "double"
    assert kinds["is_final"] == "bool" and kinds["text"] == "string"
    assert found.column("p_joy").to_pylist() == [0.04, 0.76, 0.04, pytest.approx(0.8 / 6, abs=1e-5)]


def test_parquet_of_others_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "call.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)
    with pytest.raises(MediaError, match="no table of events by cmath-stream"):
        list(parquet.read(path))
    path.write_bytes(b"PAR1 nothing more")
    with pytest.raises(MediaError, match="not Parquet"):
        list(parquet.read(path))


def test_parquet_that_lost_a_value_is_named_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "call.parquet"
    with path.open("wb") as file:
        parquet.write(short_call(), file, ABOUT)
    rows = pyarrow.parquet.read_table(path).to_pylist()
    rows[5]["start_ms"] = None
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(MediaError, match="row 6: it has no start_ms"):
        list(parquet.read(path))


def without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where it is not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyarrow" else find(name, *more)
    )


def test_parquet_without_pyarrow_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_pyarrow(monkeypatch)
    with pytest.raises(SettingsError, match=r"pip install 'cmath-stream\[analysis\]'"):
        parquet.write(short_call(), io.BytesIO(), ABOUT)
    with pytest.raises(SettingsError, match="pyarrow"):
        list(parquet.read(tmp_path / "call.parquet"))


def test_json_lines_name_their_damage(tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"
    with path.open("wb") as file:
        jsonl.write(short_call(), file, ABOUT)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])  # its writer was killed
    with pytest.raises(MediaError, match=f"call.jsonl, line {len(short_call())}: not JSON"):
        list(jsonl.read(path))
    path.write_bytes(b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n\r\n"))  # and what an editor does
    assert list(jsonl.read(path)) == short_call()
