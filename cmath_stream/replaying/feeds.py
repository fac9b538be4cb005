"""What a replay is fed with, a class a kind of input: recordings, live ones, written dialogues, features.

A feed is opened (which says what is wrong with its files), then run once; when its events are through its
notes say what a person should know about them. One feed is one conversation, or one file of conversations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from cmath_stream.events import Event
from cmath_stream.inputs import Source, channels, sources
from cmath_stream.offline import Machines
from cmath_stream.replay import sha256
from cmath_stream.sources import dialogues, tapes, turns, written
from cmath_stream.sources.attribution import attribute
from cmath_stream.sources.clips import NOTHING, Clip, Clips, load_clip
from cmath_stream.sources.dialogues import Spoken, Written
from realtime import captions as caption_files
from realtime.captions import Captions
from realtime.errors import MediaError
from realtime.recording import Recording
from realtime.sealed import SealedReader, read_key
from realtime.tape import from_bytes
from realtime.taping import TapeConfig

Progress = Callable[[float], None]  # how much of `total` is done; called from any thread
FIND_OUT = 0
_NOTES = 5  # of one kind; more would hide the others


@dataclass(frozen=True, slots=True)
class Asked:
    """One input as the command line names it."""

    files: tuple[Path, ...]  # one recording a participant, or one file of another kind
    name: str = "replay"  # of the conversation, where the input gives none
    captions: tuple[Path, ...] = ()
    participants: tuple[str, ...] = ()
    turns: Path | None = None
    speakers: int | None = None  # of one recording, told apart by their voices; FIND_OUT = however many
    media_dir: Path | None = None


class Feed(Protocol):
    """An opened input."""

    @property
    def total(self) -> float | None:
        """Seconds of media, or utterances; None = nobody knows."""
        ...

    @property
    def in_seconds(self) -> bool:
        """Which of the two."""
        ...

    def run(self, machines: Machines, on_progress: Progress) -> Iterator[Event]:
        """All events, one conversation after another."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know, a sentence each; complete after the last event."""
        ...


def is_dialogues(path: Path) -> bool:
    """Whether a file holds written dialogues, by its name."""
    return path.suffix.lower() in dialogues.SUFFIXES


def is_features(path: Path) -> bool:
    """Whether a file holds features of conversations, by its name."""
    return path.suffix.lower() in (".pkl", ".npz")


def is_recording(path: Path) -> bool:
    """Whether a file is read as media: whatever is not known to be something else."""
    return not (is_dialogues(path) or is_features(path) or tapes.is_tape(path))


def open_feed(asked: Asked, tape: TapeConfig) -> Feed:
    """`tape` names the key of recorded sessions.

    Raises CmathStreamError, one line, for what cannot be read.
    """
    if tapes.is_tape(asked.files[0]):
        return TapeFeed(asked, tape)
    if is_dialogues(asked.files[0]):
        return DialogueFeed(asked)
    if is_features(asked.files[0]):
        return FeatureFeed(asked)
    return RecordingFeed(asked) if asked.speakers is None else VoicesFeed(asked)


class RecordingFeed:
    """Recordings of one conversation."""

    in_seconds = True

    def __init__(self, asked: Asked) -> None:
        self._name = asked.name
        self._notes: list[str] = []
        self._sources = self._people(asked)
        lengths = [Recording.open(path).duration_s for path in {source.path for source in self._sources}]
        self.total = max((length for length in lengths if length is not None), default=None)

    def run(self, machines: Machines, on_progress: Progress) -> Iterator[Event]:
        machine = machines.full
        yield from machine.run(self._sources, on_progress, self._name)
        self._notes += machine.missing

    @property
    def notes(self) -> Sequence[str]:
        return self._notes

    def _people(self, asked: Asked) -> list[Source]:
        track, names = asked.files[0], asked.participants
        if asked.turns is not None:
            Recording.open(track)  # what is no recording is said before what is wrong with its turns
            found = turns.shared(track, turns.read(asked.turns, track.stem), _words(asked))
            self._notes += found.notes
            return found.sources
        if len(names) > 1 and len(asked.files) == 1:
            return channels(track, asked.captions, names)
        return sources(asked.files, asked.captions, names)


class VoicesFeed:
    """One recording of several people, told apart by their voices: heard twice, first for the voices."""

    in_seconds = True

    def __init__(self, asked: Asked) -> None:
        (self._track,) = asked.files
        self._name, self._speakers = asked.name, asked.speakers or None
        self._words = _words(asked)
        length_s = Recording.open(self._track).duration_s
        self.total = None if length_s is None else 2 * length_s
        self.notes: list[str] = []

    def run(self, machines: Machines, on_progress: Progress) -> Iterator[Event]:
        machine = machines.full
        found = attribute(machine, self._track, self._speakers, on_progress)
        people = turns.shared(self._track, turns.Marked(found.turns), self._words)
        first_s = (self.total or 0.0) / 2
        told = machine.run(people.sources, lambda done_s: on_progress(first_s + done_s), self._name)
        yield from found.marked(told, people.sources)
        self.notes = [found.note, *people.notes, *machine.missing]


class TapeFeed:
    """A recorded live session."""

    in_seconds = True

    def __init__(self, asked: Asked, config: TapeConfig) -> None:
        (self._path,) = asked.files
        if not config.key_file:
            raise MediaError(
                f"{self._path.name} is sealed: say where its key is, as tape.key_file in the settings or in "
                "CMATH_STREAM__TAPE__KEY_FILE"
            )
        self._reader = SealedReader(self._path, read_key(Path(config.key_file)))
        self._contents = tapes.look_through(self._reader)
        self.total = self._contents.length_s
        self._unknown = 0
        self._lacking: Counter[str] = Counter()

    def run(self, machines: Machines, on_progress: Progress) -> Iterator[Event]:
        machine, without = machines.full, self._contents.missing
        session_id = machine.session_id(sha256(self._path))
        told = tapes.messages(session_id, from_bytes(self._reader), on_progress)
        for event in machine.tell(session_id, told, without):
            if event["type"] == "emotion.utterance":
                known = without.get(event["utterance_id"])
                self._unknown += known is None
                for name, each in event["modalities"].items():
                    self._lacking[name] += not each["used"] and name not in (known or {})
            yield event

    @property
    def notes(self) -> Sequence[str]:
        notes = [] if self._contents.whole else ["the recording was cut off: the last second may be missing"]
        if self._unknown:
            notes.append(f"{self._unknown} utterances whose live answer the recording does not have")
        elif lacking := +self._lacking:
            counts = ", ".join(f"{name} {count}" for name, count in sorted(lacking.items()))
            notes.append(f"utterances that lack here what they had live: {counts}")
        return notes


class DialogueFeed:
    """Written dialogues, with their clips where a folder has them."""

    in_seconds = False

    def __init__(self, asked: Asked) -> None:
        (path,) = asked.files
        self._dialogues = dialogues.read(path)
        self._clips = None if asked.media_dir is None else Clips(asked.media_dir)
        self.total = float(sum(len(each.utterances) for each in self._dialogues))
        self._without = 0  # utterances that have no clip
        self._failed: list[str] = []
        every = [each for dialogue in self._dialogues for each in dialogue.utterances]
        self._untimed = sum(each.start_s is None for each in every)

    def run(self, machines: Machines, on_progress: Progress) -> Iterator[Event]:
        machine = machines.full
        done = 0
        for dialogue in self._dialogues:
            clips = self._paths(dialogue)
            contents = {number: sha256(path) for number, path in clips.items()}
            session_id = machine.session_id(dialogue, contents)
            look = None if self._clips is None else partial(self._look, clips)
            yield from machine.tell(session_id, written.messages(session_id, dialogue, machine.config, look))
            done += len(dialogue.utterances)
            on_progress(done)

    @property
    def notes(self) -> Sequence[str]:
        notes = [*self._failed[:_NOTES]]
        if len(self._failed) > _NOTES:
            notes.append(f"... and {len(self._failed) - _NOTES} more clips that could not be read")
        if self._without:
            notes.append(f"{self._without} of {self.total:.0f} utterances have no clip: words alone")
        if self._untimed:
            notes.append(
                f"{self._untimed} of {self.total:.0f} utterances have no times: laid out one after the other"
            )
        return notes

    def _paths(self, dialogue: Written) -> dict[int, Path]:
        """The clips of a dialogue by the number of their utterance."""
        if self._clips is None:
            return {}
        found = {each.number: self._clips.find(dialogue.name, each.number) for each in dialogue.utterances}
        return {number: path for number, path in found.items() if path is not None}

    def _look(self, clips: Mapping[int, Path], said: Spoken, start_s: float, longest_s: float) -> Clip:
        path = clips.get(said.number)
        if path is None:
            self._without += 1
            return NOTHING
        try:
            return load_clip(path, start_s, longest_s)
        except MediaError as error:
            self._failed.append(f"words alone: {error}")
            return NOTHING


class FeatureFeed:
    """Conversations whose features others have computed: the fusion alone."""

    in_seconds = False

    def __init__(self, asked: Asked) -> None:
        from cmath_stream.training.feature_files import read_raw

        (self._path,) = asked.files
        self._raw = read_raw(self._path)
        self.total = float(sum(len(each.label) for each in self._raw.dialogues))
        self.notes: list[str] = []

    def run(self, machines: Machines, on_progress: Progress) -> Iterator[Event]:
        from cmath_stream.sources import features  # brings torch

        machine, checkpoint = machines.fusion_alone, machines.checkpoint
        if not checkpoint.meta.config.causal:
            name = checkpoint.meta.name
            self.notes.append(
                f"{name} was trained to see later utterances too; here it sees none, as in a call"
            )
        found = features.prepared(checkpoint, self._path, self._raw)
        content, done = sha256(self._path), 0
        for each in found.conversations:
            session_id = machine.session_id(each.name, content)
            told = features.messages(session_id, each, checkpoint, machine.config)
            yield from machine.tell(session_id, told)
            done += len(each.example.label)
            on_progress(done)


def _words(asked: Asked) -> Captions | None:
    """The captions of one recording as one; None where no file of them is named."""
    words: Captions = {}
    for path in asked.captions:
        for speaker, said in caption_files.read(path, asked.files[0].stem).items():
            words.setdefault(speaker, []).extend(said)
    return words if asked.captions else None
