"""`cmath-stream engine`: compile the fusion model for this machine, look at what is built, check it."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cmath_stream.engine import Engine

app = typer.Typer(no_args_is_help=True, help="Compiled engines of the fusion model.")


class RuntimeOption(StrEnum):
    """What an engine is compiled with."""

    auto = "auto"
    tensorrt = "tensorrt"
    cuda = "cuda"
    inductor = "inductor"
    onnx = "onnx"


Runtime = Annotated[RuntimeOption, typer.Option(help="auto: the best that this machine can build with.")]


@app.command()
def build(context: typer.Context, runtime: Runtime = RuntimeOption.auto) -> None:
    """Compile the configured checkpoint; `worker fuse` takes it from then on."""
    from cmath_stream import compile as compiling

    engine = _engine(context)
    name = compiling.chosen(runtime.value)
    if name == "eager":
        typer.echo("this machine can build none: eager is used (a C++ compiler is missing)")
        return
    typer.echo(f"compiling with {name}: half a minute or more ...")
    path = compiling.build(engine, name)
    worst = max(each.difference for each in compiling.check(engine, compiling.load(engine, name, 1)))
    typer.echo(f"{path}: built, within {worst:.1e} of eager")


@app.command()
def info(context: typer.Context) -> None:
    """Say what each runtime lacks here or has built, and which one is used; the last line is JSON."""
    from cmath_stream import compile as compiling
    from cmath_stream.runtimes import RUNTIMES, runtime

    engine = _engine(context)
    found = {}
    for name in RUNTIMES:
        if name == "eager":
            continue
        wanted = compiling.identity(engine, name)
        missing = runtime(name).missing()
        built = compiling.built(wanted)
        found[name] = {"missing": missing, "built": built, "path": str(compiling.where(wanted))}
        state = f"built: {compiling.where(wanted)}" if built else "not built"
        typer.echo(f"{name:9} {state}" + (f" (needs {missing})" if missing else ""))
    used = next((name for name, each in found.items() if each["built"]), "eager")
    typer.echo(f"used by `worker fuse` with engine.runtime = auto: {used}")
    typer.echo(json.dumps({"used": used, "runtimes": found}))


@app.command()
def check(context: typer.Context, runtime: Runtime = RuntimeOption.auto) -> None:
    """Compare what is built with eager; the last line is JSON. Exit 1 if a program is off.

    `auto` checks every runtime that this machine has, and builds those that are not built yet.
    """
    from cmath_stream import compile as compiling
    from cmath_stream.runtimes import RUNTIMES
    from cmath_stream.runtimes import runtime as by_name

    engine = _engine(context)
    names = [
        name
        for name in RUNTIMES
        if name != "eager" and runtime.value in ("auto", name) and by_name(name).missing() is None
    ]
    rows = []
    for name in names if names or runtime.value == "auto" else [compiling.chosen(runtime.value)]:
        if not compiling.built(compiling.identity(engine, name)):
            typer.echo(f"compiling with {name} ...")
            compiling.build(engine, name)
        for each in compiling.check(engine, compiling.load(engine, name, 1)):
            rows.append({"runtime": name, "program": each.program, "batch": each.batch}
                        | {"difference": each.difference, "within": each.within})  # fmt: skip
            verdict = "ok" if each.within else "OFF"
            typer.echo(f"{name:9} {each.program:9} batch {each.batch:3}  {each.difference:.1e}  {verdict}")
    typer.echo(json.dumps({"checked": rows, "ok": all(row["within"] for row in rows)}))
    if not all(row["within"] for row in rows):
        raise typer.Exit(1)


def _engine(context: typer.Context) -> Engine:
    from cmath_stream.config import load_checkpoint
    from cmath_stream.engine import Engine

    fusion = context.obj.settings().fusion
    return Engine(load_checkpoint(fusion), fusion.engine)
