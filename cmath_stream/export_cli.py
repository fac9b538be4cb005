"""`cmath-stream export`: events of a file, or of a session that Redis has, as files of other formats."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from cmath_stream.console import RedisUrl, ask
from realtime.errors import MediaError, SettingsError

if TYPE_CHECKING:
    from cmath_stream.exports.sources import Recorded
    from realtime.redis_bus import RedisConfig
    from realtime.redis_cluster import Client

_STANDARD = Path("-")  # standard output
_EVERY = "all"


def export(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="File of events (JSONL, CSV, Parquet, VTT, EAF, RTTM, EmotionML), `-` for standard input"
            " (JSONL), or a session of Redis: a room, a session id, or 8 or more of its first characters.",
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT[,FORMAT…]",
            help="jsonl, csv, parquet, vtt, eaf, rttm, emotionml, html, png, all; default by --out's suffix.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File, or folder for several formats; `-` is standard output; default beside SOURCE."
        ),
    ] = None,
    media: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, dir_okay=False, help="Recording to play beside the html, or to link in the eaf."
        ),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Of a file with events of several sessions, the one to export."),
    ] = None,
    redis: RedisUrl = None,
) -> None:
    """Write the events of a conversation in other formats, or read them back from there.

    jsonl, csv, parquet, vtt, eaf and emotionml carry every event whole, rttm who
    spoke when; html is a report and png a picture.
    """
    formats = _formats(to, out)
    with TemporaryDirectory() as folder:
        events, name, origin = _source(context, source, session, redis, Path(folder))
        targets = _targets(formats, out, name, origin)
        if media and not any(_takes_media(each) for each in targets):
            raise typer.BadParameter("only html and eaf point to a recording", param_hint="--media")
        for each, path in targets.items():
            try:
                _write(each, events, name, path, media or ())
            except SettingsError as error:  # a library that is not installed
                if formats != [_EVERY]:
                    raise
                typer.echo(f"left out {path}: {error}", err=True)


def _formats(to: str | None, out: Path | None) -> list[str]:
    """The formats asked for; ["all"] for every one."""
    from cmath_stream.exports.formats import FORMATS, by_suffix

    if to is None:
        guessed = by_suffix(out) if out else None
        if guessed is None:
            raise typer.BadParameter(f"which of {', '.join(FORMATS)}, {_EVERY}?", param_hint="--to")
        return [guessed]
    formats = list(dict.fromkeys(each.strip().lower() for each in to.split(",")))
    unknown = [each for each in formats if each not in FORMATS and formats != [_EVERY]]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} is none of {', '.join(FORMATS)}, {_EVERY}", param_hint="--to"
        )
    return formats


def _source(
    context: typer.Context, source: str, session: str | None, redis: str | None, folder: Path
) -> tuple[Recorded, str, Path | None]:
    """The events, what to call them, and the file they are in. `folder` keeps what can be read only once."""
    from cmath_stream.exports.formats import by_suffix
    from cmath_stream.exports.sources import in_file, in_lines

    kept, path = folder / "events.jsonl", Path(source)
    if source == "-":
        with kept.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return in_lines(kept, "standard input", session), "events", None
    if path.is_file():
        return in_file(path, session), path.stem, path
    if by_suffix(path) or os.sep in source:
        raise MediaError(f"{source}: there is no such file")
    try:
        session_id = _fetch(context, source, redis, kept)
    except SettingsError as error:
        raise SettingsError(f"there is no file {source}, and for a session: {error}") from None
    return in_lines(kept, f"session {session_id}"), session_id, None


def _fetch(context: typer.Context, name: str, url: str | None, kept: Path) -> str:
    """Copy what Redis has of a session so far; its id."""
    from realtime.known_sessions import KnownSessions
    from realtime.redis_pages import entries

    async def job(client: Client, config: RedisConfig) -> str:
        found = await KnownSessions(client, config).find(name)
        with kept.open("wb") as file:
            async for _, fields in entries(client, config.keys.events(found.id)):
                file.write(fields[b"event"] + b"\n")
        return found.id

    return ask(context, url, job)


def _targets(formats: Sequence[str], out: Path | None, name: str, origin: Path | None) -> dict[str, Path]:
    """Where each format goes."""
    from cmath_stream.exports.formats import FORMATS

    beside = origin.parent if origin else Path()
    every = list(formats) == [_EVERY]
    if out is not None and len(formats) == 1 and not every and not out.is_dir():
        targets = {formats[0]: out}
    else:
        folder = out or (beside / f"{name}-export" if every else beside)
        if folder == _STANDARD or folder.is_file():
            raise typer.BadParameter("several formats need a folder", param_hint="--out")
        targets = {each: folder / f"{name}.{each}" for each in (FORMATS if every else formats)}
    if origin is not None and any(origin.resolve() == path.resolve() for path in targets.values()):
        raise typer.BadParameter(
            f"{origin} would be written over by what is made from it", param_hint="--out"
        )
    return targets


def _takes_media(name: str) -> bool:
    from cmath_stream.exports.formats import FORMATS

    return FORMATS[name].takes_media


def _write(name: str, events: Recorded, called: str, path: Path, media: Sequence[Path]) -> None:
    from cmath_stream.exports.about import About
    from cmath_stream.exports.formats import FORMATS
    from cmath_stream.whole_file import whole_file

    folder = Path() if path == _STANDARD else path.parent
    about = About(called, tuple(Path(os.path.relpath(each, folder)).as_posix() for each in media))
    if path == _STANDARD:
        with TemporaryFile() as file:
            FORMATS[name].write(events, file, about)
            file.seek(0)
            try:
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            except BrokenPipeError:  # `| head`: nobody reads any more, which is no error
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    with whole_file(path) as file:
        FORMATS[name].write(events, file, about)
    typer.echo(f"wrote {path}", err=True)
