"""`cmath-stream dlq`: jobs and notices that no worker could do with, put aside for a person."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cmath_stream.console import RedisUrl, ask, table

if TYPE_CHECKING:
    from realtime.dead_letters import DeadLetters, Letter
    from realtime.redis_bus import RedisConfig
    from realtime.redis_cluster import Client

app = typer.Typer(no_args_is_help=True, help="Dead letters: what no worker could do with.")

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `dlq list` shows them.")]
All = Annotated[bool, typer.Option("--all", help="All that are there now.")]
Stream = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Only those of segments or features, or of one shard: segments:0."),
]
_HEAD = ("STREAM", "ID", "TYPE", "SESSION", "UTTERANCE", "DELIVERIES", "WHEN", "ERROR")


@app.command("list")
def show(
    context: typer.Context,
    stream: Stream = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One letter a line, with the whole session id.")
    ] = False,
    redis: RedisUrl = None,
) -> None:
    """Show who and which utterance each is of, and why it is here. Never shows what somebody said."""
    from realtime.dead_letters import DeadLetters

    letters = ask(context, redis, lambda client, config: DeadLetters(client, config).letters(stream))
    if as_json:
        for letter in letters:
            typer.echo(json.dumps(asdict(letter)))
    elif letters:
        typer.echo(table([_HEAD, *map(_row, letters)]))
    else:
        typer.echo("no dead letters")


@app.command()
def retry(
    context: typer.Context, ids: Ids = None, every: All = False, stream: Stream = None, redis: RedisUrl = None
) -> None:
    """Put letters back on their streams as new entries, and remove them here, in one step each.

    Every worker group of the stream reads them again; an answer given twice
    changes nothing. A job past its deadline (ten seconds) is answered
    `deadline`, one whose media have expired `media_expired`.
    """
    from realtime.dead_letters import DeadLetters

    async def job(client: Client, config: RedisConfig) -> int:
        dead = DeadLetters(client, config)
        return sum([await dead.retry(letter) for letter in await _chosen(dead, ids, every, stream)])

    typer.echo(f"put back: {ask(context, redis, job)}")


@app.command()
def drop(
    context: typer.Context, ids: Ids = None, every: All = False, stream: Stream = None, redis: RedisUrl = None
) -> None:
    """Delete letters for good."""
    from realtime.dead_letters import DeadLetters

    async def job(client: Client, config: RedisConfig) -> int:
        dead = DeadLetters(client, config)
        return sum([await dead.drop(letter) for letter in await _chosen(dead, ids, every, stream)])

    typer.echo(f"deleted: {ask(context, redis, job)}")


async def _chosen(dead: DeadLetters, ids: list[str] | None, every: bool, stream: str | None) -> list[Letter]:
    if bool(ids) is every:
        raise typer.BadParameter("give ids or --all, and not both", param_hint="ID")
    return await dead.chosen(ids, stream) if ids else await dead.letters(stream)


def _row(letter: Letter) -> tuple[object, ...]:
    from realtime.dead_letters import short

    when = datetime.fromtimestamp(letter.failed_at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    session = letter.session_id[:8]
    return (
        short(letter.stream), letter.entry_id, letter.type, session, letter.utterance_id, letter.deliveries,
        when if letter.failed_at else None, letter.error,
    )  # fmt: skip
