"""A session as a picture: who spoke when, in which words, and what emotion was seen in them.

Events in, PNG out (matplotlib without pyplot: no global state). Time runs in strips of equal length, each
with two rows per participant: the utterances as bars, and all probabilities as stacked areas.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Patch
from matplotlib.textpath import TextToPath
from matplotlib.ticker import FuncFormatter, MultipleLocator

from cmath_stream.events import Event
from cmath_stream.exports.said import labels_of, last_words

# Okabe & Ito's palette: told apart by people with any of the common colour-vision deficiencies
COLOURS = {
    "joy": "#E69F00",
    "surprise": "#56B4E9",
    "anger": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "sadness": "#0072B2",
    "neutral": "#A6A6A6",
}
_OTHER = ("#8C6D31", "#6B4C9A", "#2F4B4B", "#9C9E39", "#7F3C3C", "#4D4D4D")  # labels of another set
_INK, _FAINT = "#222222", "#6E6E6E"
_LETTERS = {"text": "T", "audio": "A", "visual": "V"}

WIDTH_IN, DPI = 17.0, 110
STRIP_S, MAX_STRIPS = 30.0, 12  # a long session gets longer strips rather than an endless picture
_BAR_IN, _AREA_IN, _ROOM_IN, _AXIS_IN, _HEAD_IN = 1.05, 0.6, 0.16, 0.45, 0.95  # heights
_LEFT_IN, _RIGHT_IN = 1.15, 0.25
_FONT_PT, _LINE_PT, _PAD_PT = 8.2, 10.2, 3.0
_NARROW_PT = 8.0  # from line to line where they run upwards
_HINTING = 1.05  # letters on whole pixels come out a little wider than their outlines
_BOX_BOTTOM, _BOX_TALL = 0.19, 0.78  # of a bar's row
_BOX_TALL_PT = _BOX_TALL * _BAR_IN * 72


@dataclass(frozen=True, slots=True)
class _Utterance:
    participant: str
    start_s: float
    end_s: float
    label: str | None  # None = abstained
    probabilities: tuple[float, ...]  # in the order of the labels
    text: str
    missing: str  # letters of the inputs that were not used


def timeline(events: Iterable[Event], file: Path | BinaryIO, title: str) -> None:
    """Draw the `emotion.utterance` events among `events`, the highest revision of each, as a PNG file."""
    latest = last_words(events)
    labels = labels_of(latest) or list(COLOURS)
    said = [_utterance(event, labels) for event in latest]
    others = iter(_OTHER * (1 + len(labels) // len(_OTHER)))
    colours = {label: COLOURS.get(label) or next(others) for label in labels}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # any script; boxes will do
        figure = _draw(said, colours, title)
        figure.savefig(file, format="png")


def _utterance(event: Event, labels: Sequence[str]) -> _Utterance:
    share = {entry["name"]: entry["probability"] for entry in event["emotions"]}
    used = {name: entry["used"] for name, entry in event["modalities"].items()}
    return _Utterance(
        participant=event["participant_id"],
        start_s=event["start_ms"] / 1000,
        end_s=event["end_ms"] / 1000,
        label=None if event["abstained"] else event["label"],
        probabilities=tuple(share.get(label, 0.0) for label in labels),
        text=event.get("text", ""),
        missing="".join(letter for name, letter in _LETTERS.items() if not used.get(name, False)),
    )


def _draw(said: Sequence[_Utterance], colours: Mapping[str, str], title: str) -> Figure:
    people = list(dict.fromkeys(one.participant for one in said))
    length_s = max((one.end_s for one in said), default=0.0) + 0.5
    strip_s = max(STRIP_S, math.ceil(length_s / MAX_STRIPS / 30) * 30.0)
    strips = max(1, math.ceil(length_s / strip_s))
    if strips == 1:
        strip_s = max(10.0, math.ceil(length_s / 5) * 5.0)
    strip_in = max(1, len(people)) * (_BAR_IN + _AREA_IN + _ROOM_IN) + _AXIS_IN
    height_in = _HEAD_IN + strips * strip_in
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor="white")
    _head(figure, height_in, colours, title)
    if not said:
        figure.text(0.5, 0.3, "no utterances", ha="center", color=_FAINT, fontsize=12)
    for strip in range(strips):
        top_in = height_in - _HEAD_IN - strip * strip_in
        begin_s, end_s = strip * strip_s, (strip + 1) * strip_s
        for person in people:
            own = [one for one in said if one.participant == person]
            inside = [one for one in own if one.end_s > begin_s and one.start_s < end_s]
            bars = _axes(figure, top_in, _BAR_IN, height_in, begin_s, end_s)
            areas = _axes(figure, top_in - _BAR_IN, _AREA_IN, height_in, begin_s, end_s)
            top_in -= _BAR_IN + _AREA_IN + _ROOM_IN
            bars.set_ylabel(
                person[:16], rotation=0, ha="right", va="center", fontsize=11, fontweight="bold", color=_INK
            )
            areas.set_ylabel("probability", rotation=0, ha="right", va="center", fontsize=7, color=_FAINT)
            points_per_s = (WIDTH_IN - _LEFT_IN - _RIGHT_IN) * 72 / strip_s
            for one in inside:
                _bar(bars, one, colours, points_per_s, begin_s, end_s)
            _areas(areas, own, list(colours.values()))
            if person == people[-1]:
                areas.tick_params(labelbottom=True, bottom=True, length=3)
    return figure


def _head(figure: Figure, height_in: float, colours: Mapping[str, str], title: str) -> None:
    left = _LEFT_IN / WIDTH_IN
    figure.text(
        left,
        1 - 0.22 / height_in,
        title,
        va="top",
        fontsize=15,
        fontweight="bold",
        color=_INK,
        parse_math=False,
    )
    figure.text(
        left,
        1 - 0.56 / height_in,
        "stronger colour = more probable · white, dashed = undecided · "
        "letter under a bar = an input that was missing (T text, A audio, V visual)",
        va="top",
        fontsize=8.5,
        color=_FAINT,
    )
    figure.legend(
        handles=[Patch(color=colour, label=label) for label, colour in colours.items()],
        loc="upper right",
        bbox_to_anchor=(1 - _RIGHT_IN / WIDTH_IN, 1 - 0.14 / height_in),
        ncols=len(colours),
        frameon=False,
        fontsize=9.5,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.3,
        borderaxespad=0,
    )


def _axes(
    figure: Figure, top_in: float, tall_in: float, height_in: float, begin_s: float, end_s: float
) -> Axes:
    wide = (WIDTH_IN - _LEFT_IN - _RIGHT_IN) / WIDTH_IN
    axes = figure.add_axes((_LEFT_IN / WIDTH_IN, (top_in - tall_in) / height_in, wide, tall_in / height_in))
    axes.set_xlim(begin_s, end_s)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    step_s = next(step for step in (5, 10, 30, 60, 300, 1e9) if (end_s - begin_s) / step <= 15)
    axes.xaxis.set_major_locator(MultipleLocator(step_s))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{int(s) // 60}:{int(s) % 60:02d}"))
    axes.tick_params(labelbottom=False, bottom=False, labelsize=8, colors=_FAINT)
    axes.grid(axis="x", color="#E8E8E8", linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.patch.set_visible(False)
    return axes


def _bar(
    axes: Axes,
    one: _Utterance,
    colours: Mapping[str, str],
    points_per_s: float,
    begin_s: float,
    end_s: float,
) -> None:
    left_s, right_s = max(one.start_s, begin_s), min(one.end_s, end_s)
    edge = colours[one.label] if one.label else _FAINT
    fill = _mixed(edge, 0.2 + 0.8 * max(one.probabilities)) if one.label else to_rgb("white")
    axes.add_patch(
        FancyBboxPatch(
            (left_s, _BOX_BOTTOM),
            right_s - left_s,
            _BOX_TALL,
            boxstyle="round,pad=0,rounding_size=0.04",
            facecolor=fill,
            edgecolor=edge,
            linewidth=0.9,
            linestyle="-" if one.label else "--",
            zorder=2,
        )
    )
    if one.missing:
        middle_s = (left_s + right_s) / 2
        letters = " ".join(one.missing)
        axes.text(middle_s, 0.14, letters, ha="center", va="top", fontsize=7.5, color=_INK, fontweight="bold")
    if right_s - left_s < 0.5 * (one.end_s - one.start_s):
        return  # the greater part lies in another strip and carries the words
    wide_pt = (right_s - left_s) * points_per_s - 2 * _PAD_PT
    label, ink = one.label or "undecided", "white" if _luminance(fill) < 0.2 else _INK
    upright = _width_pt(label, bold=True) <= wide_pt
    if upright:
        numbered = f"{label} {max(one.probabilities):.2f}"
        head = numbered if _width_pt(numbered, bold=True) <= wide_pt else label
        rows = int((_BOX_TALL_PT - 2 * _PAD_PT) / _LINE_PT) - 1
        lines = [head, *_wrapped(one.text, wide_pt, rows)]
    else:  # a short interjection: the lines run upwards, as many as there is room for
        rows = int((wide_pt + 2 * _PAD_PT) / _NARROW_PT)
        lines = [label, *_wrapped(one.text, _BOX_TALL_PT - 2 * _PAD_PT, rows - 1)][:rows]
    for number, line in enumerate(lines):
        axes.annotate(
            line,
            (left_s, _BOX_BOTTOM + _BOX_TALL if upright else _BOX_BOTTOM),
            xytext=(_PAD_PT, -_PAD_PT - number * _LINE_PT) if upright else (number * _NARROW_PT, _PAD_PT),
            textcoords="offset points",
            ha="left",
            va="top" if upright else "bottom",
            rotation=0 if upright else 90,
            fontsize=_FONT_PT if upright else _NARROW_PT - 1.5,
            fontweight="normal" if number else "bold",
            color=ink,
            zorder=3,
            parse_math=False,
        )


def _wrapped(text: str, wide_pt: float, rows: int) -> list[str]:
    """`text` in at most `rows` lines that fit `wide_pt`; what does not fit is cut, with an ellipsis."""
    lines: list[str] = []
    rest = text.split()
    while rest and len(lines) < rows:
        taken = 1
        while taken < len(rest) and _width_pt(" ".join(rest[: taken + 1])) <= wide_pt:
            taken += 1
        line, rest = " ".join(rest[:taken]), rest[taken:]
        last = bool(rest) and len(lines) == rows - 1
        if last or _width_pt(line) > wide_pt:
            while line and _width_pt(line + "…") > wide_pt:
                line = line[:-1].rstrip()
            line += "…"
        lines.append(line)
    return lines


def _width_pt(text: str, bold: bool = False) -> float:
    font = FontProperties(size=_FONT_PT, weight="bold" if bold else "normal")
    return _HINTING * float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0])


def _areas(axes: Axes, own: Sequence[_Utterance], colours: Sequence[str]) -> None:
    """Constant through an utterance; a faint straight passage to the next, as nothing was said there."""
    times = [time for one in own for time in (one.start_s, one.end_s)]
    heights = [[one.probabilities[i] for one in own for _ in range(2)] for i in range(len(colours))]
    axes.stackplot(times, heights, colors=colours, linewidth=0, zorder=2)
    for last, following in zip(own, own[1:], strict=False):
        axes.axvspan(last.end_s, following.start_s, color="white", alpha=0.6, linewidth=0, zorder=3)
    axes.set_ylim(0, 1.12)


def _mixed(colour: str, amount: float) -> tuple[float, float, float]:
    red, green, blue = (1 - amount + amount * part for part in to_rgb(colour))
    return red, green, blue


def _luminance(rgb: tuple[float, float, float]) -> float:
    linear = [((part + 0.055) / 1.055) ** 2.4 if part > 0.04 else part / 12.92 for part in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
