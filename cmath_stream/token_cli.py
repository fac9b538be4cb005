"""`cmath-stream token`: tokens for those who publish and subscribe."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from realtime.errors import SettingsError

app = typer.Typer(no_args_is_help=True, help="Signed bearer tokens.")


class ActionOption(StrEnum):
    """What a token may allow."""

    publish = "publish"
    subscribe = "subscribe"


@app.callback()
def _token() -> None:
    """Signed bearer tokens."""  # with a callback, `mint` stays a command's name though it is the only one


@app.command()
def mint(
    context: typer.Context,
    room: Annotated[str, typer.Option(help="Room that it opens; '*' = all.")],
    action: Annotated[list[ActionOption], typer.Option(help="What it allows; repeat for both.")],
    purpose: Annotated[str | None, typer.Option(help="For conversations of this purpose only.")] = None,
    participant: Annotated[str | None, typer.Option(help="For this participant only.")] = None,
    minutes: Annotated[int, typer.Option(min=1, max=60, help="How long it is valid.")] = 60,
) -> None:
    """Print one token, signed with [ingest.jwt] secret."""
    from realtime.grants import ANY_ROOM
    from realtime.refusals import require_name
    from realtime.tokens import mint as sign

    jwt = context.obj.settings().ingest.jwt
    if jwt.secret is None:
        raise SettingsError(
            "no secret to sign with: set CMATH_STREAM__INGEST__JWT__SECRET, for the server too, "
            "to 32 bytes or more (`openssl rand -hex 32`)"
        )
    for what, name in (("room", room), ("purpose", purpose), ("participant", participant)):
        if name is not None and (what, name) != ("room", ANY_ROOM):
            require_name(what, name)
    token = sign(
        jwt.secret,
        room=room,
        actions=[str(each) for each in action],
        purpose=purpose,
        participant=participant,
        audience=jwt.audience,
        life_s=minutes * 60,
    )
    typer.echo(token)
