"""`cmath-stream replay`: which inputs are one conversation and which are many, and where their events go."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cmath_stream.console import RedisUrl
from cmath_stream.sources.stdin import spooled


class Target(StrEnum):
    """Where else events can go."""

    redis = "redis"


def _count(text: str) -> int:
    """Of speakers; 0 = to be found out."""
    if text == "auto":
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= 8:
        raise typer.BadParameter(f"{text!r} is neither a number from 1 to 8 nor auto")
    return int(text)


def replay(
    context: typer.Context,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUTS...", help="Files; with --each folders and patterns too.")
    ],
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            help="VTT, SRT, STM or JSON; repeat for more. With --each a folder of FILE.vtt and so on."
        ),
    ] = None,
    participant: Annotated[
        list[str] | None, typer.Option(help="Names, in the order of INPUTS; of one file, of its channels.")
    ] = None,
    turns: Annotated[
        Path | None,
        typer.Option(
            help="Who speaks when in a recording of several people: RTTM, VTT with <v Name>, EAF or STM."
            " With --each also a folder of FILE.rttm and so on."
        ),
    ] = None,
    speakers: Annotated[
        int | None,
        typer.Option(
            parser=_count,
            metavar="N|auto",
            help="How many people share a recording: told apart by their voices, a guess that says so.",
        ),
    ] = None,
    media_dir: Annotated[
        Path | None, typer.Option(help="Folder of a dialogue's clips, named dia3_utt7.mp4 as MELD has them.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="The fusion's, by path or shipped name; default that of the settings.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the events here (JSONL; with --each a folder); default standard output."),
    ] = None,
    gold: Annotated[
        Path | None,
        typer.Option(
            help="Labels to score against: dialogues as above, or a CSV with the columns emotion, and"
            " utterance, or start_ms and end_ms; where needed participant, dialogue (or file)."
        ),
    ] = None,
    each: Annotated[bool, typer.Option("--each", help="Every input is a conversation of its own.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --each: processes, two cores and up to 1.5 GB each; default what fits."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="With --each: redo what is finished already.")
    ] = False,
    speed: Annotated[
        float | None,
        typer.Option(min=0.01, help="Tell the events at this pace; 1 = as they happened. They are the same."),
    ] = None,
    to: Annotated[
        Target | None,
        typer.Option(
            help="Publish the events as a live session's: prints its id, and changes nothing twice."
        ),
    ] = None,
    redis: RedisUrl = None,
) -> None:
    """Run recordings or written dialogues through the whole line, offline.

    INPUTS are one conversation: a recording each participant, or one recording
    of several people (a channel each with --participant, by --turns, or by their
    voices with --speakers). A file of written dialogues is a conversation each
    dialogue: JSON lines, or a CSV with the columns of MELD. So is a file of
    features (.npz, or a pickle of the research community), for a --checkpoint
    trained on such. A `.tape` is a recorded live session. `-` is standard input: a
    recording, or JSON lines.

    With --each every input is a conversation of its own, and so is every
    recording in a folder; the folder of --out gets a file of events for each,
    and what is there already is not done again.

    A recording of two channels is one participant who is heard on both, unless
    it gets two --participant.
    """
    from cmath_stream.replaying import runs
    from cmath_stream.replaying.inputs import Options, many, one, usage

    settings = context.obj.settings(redis)
    if checkpoint is not None:
        settings = replace(settings, fusion=replace(settings.fusion, checkpoint=checkpoint))
    options = Options(captions or [], participant or [], turns, speakers, media_dir)
    if each:
        for option, given in (("--speed", speed), ("--to", to)):
            if given is not None:
                raise usage("is for one input: not with --each", option)
        if out is None or out.is_file():
            raise usage("writes a file of events for each input: name a folder", "--out")
        tasks = many(inputs, options, out)
        if runs.each(tasks, settings, out, jobs, gold, again=again):
            raise typer.Exit(1)
        return
    if jobs is not None or again:
        raise usage("is for many inputs: add --each", "--jobs" if jobs is not None else "--again")
    with spooled(inputs, sys.stdin.buffer) as found:
        config = context.obj.with_redis(redis).redis if to is Target.redis else None
        runs.one(one(found, options), settings, out, gold, speed, config)
