"""`cmath-stream bench`: how fast, how much, how well; every benchmark lives in its own module."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Measure this installation; the last line is one JSON object.")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, no table.")]
Out = Annotated[Path | None, typer.Option(help="Write the same JSON object here.")]


@app.command()
def latency(
    context: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Recordings, one a participant; default the demo.")
    ] = None,
    captions: Annotated[list[Path] | None, typer.Option(help="Captions of your recordings.")] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(help="RTTM, STM, VTT, SRT or JSON: where speech ends; default the captions' times."),
    ] = None,
    calls: Annotated[int, typer.Option(min=1, max=100, help="How often the call is played.")] = 1,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Real end of speech to emotion event, over WebRTC and through all processes."""
    from cmath_stream.benchmarks import latency as bench

    said = bench.speech(files or [], captions, truth)
    _tell(asyncio.run(bench.measure(context.obj.arguments(), said, calls)), bench.show, as_json, out)


@app.command()
def load(
    context: typer.Context,
    audio: Annotated[
        int | None, typer.Option(min=0, max=200, help="Participants with sound alone; 40 if nothing is said.")
    ] = None,
    video: Annotated[int, typer.Option(min=0, max=100, help="Participants with sound and pictures.")] = 0,
    seconds: Annotated[float, typer.Option(min=3, max=600, help="How long they play.")] = 20.0,
    fps: Annotated[int, typer.Option(min=5, max=60, help="Pictures a second, VP8 640x480.")] = 30,
    line: Annotated[bool, typer.Option("--line", help="Run workers and fusion too.")] = False,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """Participants that one ingest process on one core bears without a dropped frame. Needs Linux."""
    from cmath_stream.benchmarks import load as bench

    asked = bench.Asked((0 if video else 40) if audio is None else audio, video, seconds, fps, line)
    if not asked.participants:
        raise typer.BadParameter("a load of nobody", param_hint="--audio, --video")
    _tell(asyncio.run(bench.measure(context.obj.arguments(), asked)), bench.show, as_json, out)


@app.command()
def model(
    width: Annotated[int | None, typer.Option(min=32, help="d; default the shipped checkpoint's.")] = None,
    window: Annotated[int | None, typer.Option(min=1, max=128, help="W; default its own.")] = None,
    as_json: AsJson = False,
    out: Out = None,
) -> None:
    """The fusion model's step by runtime and batch, beside full windows and the machine's floors."""
    from rich.console import Console

    from cmath_stream.benchmarks import model as bench

    asked = bench.Asked(width, window)
    _tell(bench.measure(asked, Console(stderr=True)), bench.show, as_json, out)


@app.command(hidden=True)
def crowd(plan: Path) -> None:
    """Play a part of the load (see `benchmarks.crowd`)."""
    from cmath_stream.benchmarks import crowd as bench

    asyncio.run(bench.perform(bench.read_plan(plan)))


def _tell(result: dict[str, Any], show: Callable[..., None], as_json: bool, out: Path | None) -> None:
    from rich.console import Console

    if not as_json:
        show(result, Console())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    typer.echo(json.dumps(result))
