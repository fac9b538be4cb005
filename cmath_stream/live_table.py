"""Events of a session as a person watches them: one row an utterance, its highest revision."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from cmath_stream.events import Event

_STYLE = {
    "joy": "bold yellow",
    "surprise": "bold cyan",
    "anger": "bold red",
    "disgust": "bold green",
    "fear": "bold magenta",
    "sadness": "bold blue",
    "neutral": "white",
}
_BAR = "▏▎▍▌▋▊▉█"
_LETTERS = {"text": "T", "audio": "A", "visual": "V"}


class LiveTable:
    """The last utterances seen."""

    def __init__(self, rows: int = 20) -> None:
        self._rows = rows
        self._events: dict[tuple[str, str], Event] = {}

    def add(self, event: Event) -> bool:
        """Take an event; True if it changes the table."""
        if event["type"] != "emotion.utterance":
            return False
        key = event["session_id"], event["utterance_id"]
        known = self._events.get(key)
        if known is not None and known["revision"] >= event["revision"]:
            return False
        self._events[key] = event
        while len(self._events) > self._rows:
            del self._events[next(iter(self._events))]
        return True

    def __rich__(self) -> Table:
        table = Table(expand=True, pad_edge=False, box=None, header_style="dim")
        for name in ("time", "who", "emotion", "", "p", "used", "after"):
            right = name in ("time", "p", "after")
            table.add_column(name, no_wrap=True, justify="right" if right else "left")
        table.add_column("words", ratio=1)
        for event in sorted(self._events.values(), key=lambda e: (e["end_ms"], e["participant_id"])):
            table.add_row(*_cells(event))
        return table


def line(event: Event) -> str:
    """The same row as plain text, for a pipe or a log."""
    return "  ".join(cell.plain if isinstance(cell, Text) else cell for cell in _cells(event))


def _cells(event: Event) -> list[Text | str]:
    best = max(event["emotions"], key=lambda emotion: emotion["probability"])
    label = event["label"] or f"({best['name']}?)"
    style = _STYLE.get(best["name"], "white") if event["label"] else "dim"
    after = event.get("latency_ms", {}).get("total")
    return [
        f"{event['start_ms'] / 1000:7.2f}s",
        event["participant_id"],
        Text(f"{label:<9}", style),
        Text(_bar(best["probability"]), style),
        f"{best['probability']:4.0%}",
        _used(event),
        f"{after:5d} ms" if after is not None else "",
        event.get("text", ""),
    ]


def _bar(share: float, width: int = 8) -> str:
    eighths = round(share * width * 8)
    return ("█" * (eighths // 8) + (_BAR[eighths % 8 - 1] if eighths % 8 else "")).ljust(width)


def _used(event: Event) -> str:
    return "".join(letter if event["modalities"][m]["used"] else "·" for m, letter in _LETTERS.items())
