"""`cmath-stream session`: the sessions that Redis knows, for who runs an installation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cmath_stream.console import RedisUrl, ask, table

if TYPE_CHECKING:
    from realtime.erasure import Sought
    from realtime.known_sessions import Details, Session
    from realtime.redis_bus import RedisConfig
    from realtime.redis_cluster import Client

app = typer.Typer(no_args_is_help=True, help="Sessions: list, look at, close, erase.")

Name = Annotated[
    str,
    typer.Argument(metavar="SESSION", help="A room, a session id, or 8 or more of its first characters."),
]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
_HEAD = ("SESSION", "ROOM", "STARTED", "STATE", "HERE", "UTTERANCES", "EVENTS")


@app.command("list")
def show_all(context: typer.Context, as_json: Json = False, redis: RedisUrl = None) -> None:
    """List all sessions: those that are open and those that have not expired yet.

    HERE is how many take part now. STATE is open (an ingest holds it), closed,
    with the reason, or unheld: no ingest holds it and its end is not published,
    because its ingest died or `worker fuse` has yet to read it.
    """
    from realtime.known_sessions import KnownSessions

    sessions = ask(context, redis, lambda client, config: KnownSessions(client, config).all())
    if as_json:
        for session in sessions:
            typer.echo(json.dumps(asdict(session)))
    elif sessions:
        typer.echo(table([_HEAD, *map(_row, sessions)]))
    else:
        typer.echo("no sessions")


@app.command()
def show(context: typer.Context, session: Name, as_json: Json = False, redis: RedisUrl = None) -> None:
    """Show one session: its state, how many events of each type, totals, and when its keys end.

    Never shows what somebody said, or what was made of it.
    """
    from realtime.known_sessions import KnownSessions

    async def job(client: Client, config: RedisConfig) -> Details:
        known = KnownSessions(client, config)
        return await known.details(await known.find(session))

    details = ask(context, redis, job)
    typer.echo(json.dumps(asdict(details)) if as_json else _told(details))


@app.command()
def close(context: typer.Context, session: Name, redis: RedisUrl = None) -> None:
    """Have a session closed by the ingest that holds it.

    Everybody in it is disconnected, open utterances are finished, and the
    session ends with the reason `operator`. A client that reconnects by itself
    opens a new session of the room. Where no ingest holds the session nothing is
    done, and the exit code is 1: there is nobody who could close it, and nothing
    can come into it any more.
    """
    from realtime.known_sessions import KnownSessions

    async def job(client: Client, config: RedisConfig) -> str:
        known = KnownSessions(client, config)
        found = await known.find(session)
        await known.close(found)
        return found.id

    closed = ask(context, redis, job)
    typer.echo(f"session {closed} is closed; its last events follow when `worker fuse` has read them")


@app.command()
def erase(
    context: typer.Context,
    session: Name,
    wait: Annotated[float, typer.Option(min=0, help="Seconds for work under way to be done.")] = 10.0,
    redis: RedisUrl = None,
) -> None:
    """Remove everything that Redis holds of a closed session, look again, and say what is left.

    That is its keys, its events in the feed, its dead letters and its entries in
    the work streams. The last ones can go only once every worker has done with
    them. Where the settings name a folder of recordings, its recording goes too.
    Exit code 1 if anything is left.

    Takes the whole id of a session whose keys have expired, too: the feed keeps
    events longer. What subscribers have read, and Redis' own files until it
    rewrites them, are beyond its reach.
    """
    from realtime.erasure import Erasure, erase_tape
    from realtime.errors import OperatorError
    from realtime.known_sessions import KnownSessions, is_id

    async def job(client: Client, config: RedisConfig) -> tuple[str, list[Sought], str]:
        known = KnownSessions(client, config)
        session_id = session if is_id(session) else (await known.find(session)).id
        erasure = Erasure(client, config, session_id)
        sought = await erasure.run(wait)
        return session_id, sought, await erasure.waits_for() if any(each.left for each in sought) else ""

    session_id, sought, waiting = ask(context, redis, job)
    tape = context.obj.settings(redis).tape
    if tape.folder:
        sought.append(erase_tape(tape, session_id))
    typer.echo(f"session {session_id}")
    typer.echo(
        table([("LOOKED FOR", "FOUND", "LEFT"), *((each.what, each.found, each.left) for each in sought)])
    )
    left = sum(each.left for each in sought)
    if left:
        raise OperatorError(f"{left} left: {waiting}; then erase again")
    typer.echo("0 left")


def _row(session: Session) -> tuple[object, ...]:
    return (
        session.id, session.room, _seconds(session.started_at), _state(session), session.participants,
        session.utterances, session.events,
    )  # fmt: skip


def _told(details: Details) -> str:
    session = details.session
    facts = [
        ("session", session.id),
        ("room", session.room),
        ("started", _seconds(session.started_at)),
        ("state", _state(session)),
        ("participants here", session.participants),
        ("utterances started", session.utterances),
        ("totals at the end", _pairs(details.totals or {})),
        ("state hash", _pairs(details.fields)),
        ("events kept", session.events),
    ]
    events = [(f"  {kind}", count) for kind, count in details.events.items()]
    keys = [(key.name, key.type, key.ttl_s if key.ttl_s >= 0 else "never") for key in details.keys]
    return f"{table([*facts, *events])}\n\n{table([('KEY', 'TYPE', 'ENDS IN (S)'), *keys])}"


def _state(session: Session) -> str:
    return f"closed ({session.reason})" if session.state == "closed" else session.state


def _seconds(started_at: str | None) -> str | None:
    return started_at and f"{started_at[:19].replace('T', ' ')}Z"


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
