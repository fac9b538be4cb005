"""`cmath-stream`: one program, a command a job. Parses, calls, prints; every job lives in its own module.

Exit codes: 0 done · 1 an error, said in one line · 2 wrong usage · 130 interrupted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cmath_stream import (
    bench_cli,
    compare_cli,
    dlq_cli,
    engine_cli,
    export_cli,
    replay_cli,
    session_cli,
    token_cli,
    training_cli,
)
from cmath_stream.console import RedisUrl, plain_line, set_up_logging
from realtime.errors import CmathStreamError, SettingsError
from realtime.garbage import keep_what_is_loaded

if TYPE_CHECKING:
    from cmath_stream.config import Settings
    from realtime.messages import Modality

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Streaming real-time emotion tracker: text, voice and face of a conversation, fused per utterance.",
)
schema_app = typer.Typer(no_args_is_help=True, help="The published event schema.")
config_app = typer.Typer(no_args_is_help=True, help="The settings in force.")
app.add_typer(schema_app, name="schema")
app.add_typer(config_app, name="config")
app.add_typer(engine_cli.app, name="engine")
app.add_typer(bench_cli.app, name="bench")
app.add_typer(token_cli.app, name="token")
app.add_typer(session_cli.app, name="session")
app.add_typer(dlq_cli.app, name="dlq")


class WorkerRole(StrEnum):
    """What `worker` can run."""

    text = "text"
    audio = "audio"
    visual = "visual"
    fuse = "fuse"


@dataclass(frozen=True, slots=True)
class _Globals:
    config: Path | None
    log_level: str
    supervised: bool = False  # by `up`, which says what there is to say

    def settings(self, redis_url: str | None = None) -> Settings:
        from cmath_stream.config import load_settings

        loaded = load_settings(self.config)
        url = redis_url or loaded.redis.url or os.environ.get("REDIS_URL")
        return replace(loaded, redis=replace(loaded.redis, url=url))

    def with_redis(self, redis_url: str | None) -> Settings:
        loaded = self.settings(redis_url)
        if loaded.redis.url is None:
            raise SettingsError(
                "which Redis? Give --redis URL or set REDIS_URL (`cmath-stream up` prints its own)"
            )
        return loaded

    def arguments(self) -> list[str]:
        config = ["--config", str(self.config)] if self.config else []
        return [*config, "--log-level", self.log_level]


@app.callback()
def _main(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML); see configs/.")] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "WARNING",
    parent: Annotated[int | None, typer.Option("--die-with", hidden=True)] = None,
) -> None:
    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter(f"unknown level {log_level!r}", param_hint="--log-level")
    set_up_logging(log_level.upper())
    if parent is not None:
        from cmath_stream.parenthood import die_with

        die_with(parent)
    context.obj = _Globals(config, log_level.upper(), parent is not None)


# ---- roles -----------------------------------------------------------------------------------------


@app.command()
def up(context: typer.Context, redis: RedisUrl = None) -> None:
    """Run everything: Redis (our own unless given), ingest, all workers, fusion. Ctrl-C drains."""
    from cmath_stream.supervise import everything
    from realtime.page import url_of
    from realtime.redis_bus import without_password

    settings = context.obj.settings(redis)

    async def run(stop: asyncio.Event) -> None:
        typer.echo("starting: redis, ingest, text, audio, visual, fusion ...", err=True)
        async with everything(context.obj.arguments(), settings.redis.url) as running:
            host, port = settings.ingest.host, settings.ingest.port
            typer.echo(f"ready.  page:       {url_of(host, port, settings.ingest.token)}")
            if settings.ingest.jwt.enabled:
                typer.echo("        token:      cmath-stream token mint --room ROOM --action publish")
            typer.echo(f"        join:       http://{host}:{port}/whip/ROOM (WHIP)")
            typer.echo(f"        subscribe:  cmath-stream tail --redis {without_password(running.redis_url)}")
            typer.echo(f"        publish:    cmath-stream publish FILE --whip http://{host}:{port}/whip/ROOM")
            await running.until_done(asyncio.create_task(_until(stop), name="until stopped"))
            typer.echo("draining ...", err=True)

    _run_until_signal(run)


@app.command()
def serve(context: typer.Context, redis: RedisUrl = None) -> None:
    """Run the ingest server alone: WebRTC in, messages to Redis."""
    from cmath_stream import roles
    from realtime.page import url_of

    settings = context.obj.with_redis(redis)

    def say_ready() -> None:
        _say_ready()
        if not context.obj.supervised:
            ingest = settings.ingest
            shown = ingest.token if sys.stderr.isatty() else None  # a log is no place for a token
            typer.echo(f"page:  {url_of(ingest.host, ingest.port, shown)}", err=True)

    _run_until_signal(lambda stop: roles.ingest(settings, stop, say_ready))


@app.command()
def worker(
    context: typer.Context,
    role: WorkerRole,
    name: Annotated[
        str | None, typer.Option(help="Stable and unlike its fellows'; default the host name.")
    ] = None,
    redis: RedisUrl = None,
) -> None:
    """Run one worker alone: text, audio or visual features, or the fusion (fuse)."""
    from cmath_stream import roles

    settings = context.obj.with_redis(redis)
    consumer = name or socket.gethostname()
    if role is WorkerRole.fuse:
        _run_until_signal(lambda stop: roles.fuse(settings, consumer, stop, _say_ready))
    else:
        modality: Modality = role.value  # type: ignore[assignment]
        _run_until_signal(lambda stop: roles.worker(modality, settings, consumer, stop, _say_ready))


# ---- uses ------------------------------------------------------------------------------------------


@app.command()
def publish(
    files: Annotated[list[Path], typer.Argument(help="One recording a participant.")],
    whip: Annotated[str, typer.Option(metavar="URL", help="http://HOST:PORT/whip/ROOM")],
    captions: Annotated[
        list[Path] | None, typer.Option(help="VTT, SRT, STM or JSON; repeat for more.")
    ] = None,
    participant: Annotated[list[str] | None, typer.Option(help="Names, in the order of FILES.")] = None,
    speed: Annotated[float, typer.Option(help="A call has its own pace: only 1 is possible here.")] = 1.0,
    token: Annotated[
        str | None, typer.Option(envvar="CMATH_STREAM_TOKEN", help="Bearer token, if the server wants one.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write what was sent, and when, as JSON.")] = None,
) -> None:
    """Play recordings as the participants of a live call, over real WebRTC."""
    from cmath_stream.inputs import sources
    from cmath_stream.publishing import publish_all

    reports = _run(publish_all(sources(files, captions, participant), whip, speed=speed, token=token))
    for sent in reports:
        typer.echo(
            f"{sent['participant']}: {sent['duration_s']:.1f} s sent, {sent['captions_sent']} captions"
            + (f"; {sent['truncated']}" if sent["truncated"] else "")
        )
    if report is not None:
        report.write_text(json.dumps(reports, indent=1) + "\n", "utf-8")


app.command()(replay_cli.replay)
app.command()(compare_cli.compare)


@app.command()
def tail(
    context: typer.Context,
    session: Annotated[str | None, typer.Argument(help="Session id; default all sessions.")] = None,
    from_id: Annotated[
        str, typer.Option("--from", metavar="ID", help="Stream id to resume after; 0 = all kept.")
    ] = "$",
    as_json: Annotated[bool, typer.Option("--json", help="One event a line, as published.")] = False,
    redis: RedisUrl = None,
) -> None:
    """Watch emotions as they are published."""
    from cmath_stream.watch import tail as watch

    _run(watch(context.obj.with_redis(redis).redis, session, from_id, as_json=as_json))


@app.command()
def demo(
    context: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Your own recordings, one a participant.")
    ] = None,
    captions: Annotated[list[Path] | None, typer.Option(help="Captions of your recordings.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for demo.jsonl and demo.png.")] = Path("out"),
) -> None:
    """Run everything, publish a two-person dialogue as two WebRTC participants, show what comes out."""
    from cmath_stream.demo.run import demo as run

    run(context.obj.arguments(), files or [], captions, out)


app.command()(export_cli.export)
app.command()(training_cli.train)
app.command("eval", epilog=training_cli.EVAL_HELP)(training_cli.evaluate)


@app.command()
def doctor(context: typer.Context) -> None:
    """Check this machine: Redis, codecs, models, ports; says in one line each what to do."""
    from cmath_stream.doctor import examine

    if not _run(examine(context.obj.settings())):
        raise typer.Exit(1)


@schema_app.command("print")
def schema_print() -> None:
    """Print the JSON Schema of the public events."""
    from cmath_stream.events import schema

    typer.echo(json.dumps(schema(), indent=2))


@config_app.command("show")
def config_show(context: typer.Context) -> None:
    """Print the effective settings as JSON, secrets left out."""
    from realtime.redis_bus import without_password
    from realtime.settings import to_dict

    shown = to_dict(context.obj.settings())
    ingest = shown["ingest"]
    for section, secret in ((ingest, "token"), (ingest["jwt"], "secret"), (ingest["turn"], "secret")):
        if section[secret]:
            section[secret] = "***"
    if shown["redis"]["url"]:
        shown["redis"]["url"] = without_password(shown["redis"]["url"])
    typer.echo(json.dumps(shown, indent=2))


# ---- running ---------------------------------------------------------------------------------------


def _say_ready() -> None:
    keep_what_is_loaded()
    print("ready", flush=True)  # the supervisor waits for this line


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


def _run(job: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(job)


def _run_until_signal(role: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a role that ends when its event is set; SIGINT and SIGTERM set it."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await role(stop)

    asyncio.run(main())


def main() -> None:
    """Entry point: errors of ours are one line."""
    try:
        app()
    except CmathStreamError as error:
        print(f"cmath-stream: {plain_line(str(error))}", file=sys.stderr)
        sys.exit(1)
    except BaseExceptionGroup as group:
        ours, others = group.split(CmathStreamError)
        if others is not None or ours is None:
            raise
        print(f"cmath-stream: {plain_line(str(_first(ours)))}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a file that cannot be read or written: the system's own words
        print(f"cmath-stream: {plain_line(str(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _first(group: BaseExceptionGroup[CmathStreamError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
