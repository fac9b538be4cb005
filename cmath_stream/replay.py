"""Recorded dialogues in, the same events as live out, as fast as it goes. The whole walk on one page.

No clock is read anywhere below: session time is the files' own time, every extractor answers before the next
step, so two runs over the same files give the same bytes. Two threads share the work: one hears a few batches
of utterances ahead while the other loads the models, and then reads feelings in the last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cmath_stream.ahead import ahead
from cmath_stream.assembler import AssemblerConfig
from cmath_stream.events import Event
from cmath_stream.fusion import Outcome, Pending, SessionFusion
from cmath_stream.inputs import Source
from cmath_stream.sources.gate import gated
from realtime.conversation import Conversation, ConversationConfig
from realtime.listener import Listener, hear
from realtime.messages import (
    MODALITIES,
    Answer,
    AudioChunk,
    Caption,
    FeaturesMissing,
    Job,
    Message,
    Modality,
    Pcm,
    Picture,
    Segment,
    SegmentWithdrawn,
    SessionClosed,
    Transcript,
)
from realtime.recording import Recording
from realtime.vad import VadModel
from workers.extractor import Extractor
from workers.worker import concerns, speech_of

if TYPE_CHECKING:
    from cmath_stream.engine import Engine

Without = Mapping[str, Mapping[str, str]]  # by utterance, why it went without a modality

_JOBS_AT_ONCE = 32  # utterances an extractor gets in one batch
_BATCHES_AHEAD = 8  # heard and not yet read, some 10 MB each: as many as are heard while the models load
_NO_TIME = 0.0  # the fusion's clock stands still: every answer is there before the next message


@dataclass(frozen=True, slots=True)
class Models:
    """What reads feelings in utterances."""

    engine: Engine
    extractors: Sequence[Extractor]  # none where the input brings features

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Of which every utterance has an answer."""
        known = self.engine.modalities
        return tuple(e.modality for e in self.extractors) or tuple(m for m in MODALITIES if m in known)


class Replay:
    """Runs recordings through ingest, extractors and fusion in this process."""

    def __init__(
        self, load: Callable[[], Models], model_id: str, vad: VadModel, config: ConversationConfig
    ) -> None:
        """`load` is called in every run, and may give the same models; `model_id` says which they are."""
        self._load = load
        self._model_id = model_id
        self._vad = vad
        self.config = config
        self._speech: dict[str, Pcm] = {}  # of utterances that wait for their caption
        self.missing: list[str] = []  # what the last run could not read of its recordings, a sentence each

    def run(
        self, sources: Sequence[Source], on_progress: Callable[[float], None], name: str = "replay"
    ) -> Iterator[Event]:
        """The events of one conversation, whose room is `name`.

        `on_progress`, in another thread, gets the seconds reached.
        """
        self.missing = []
        contents = {path: sha256(path) for path in {source.path for source in sources}}
        facts = [(s.participant_id, s.channel, s.captions, s.turns, contents[s.path]) for s in sources]
        session_id = self.session_id(name, facts)
        return self.tell(session_id, self.messages(session_id, sources, on_progress, name))

    def tell(
        self, session_id: str, messages: Iterator[Message], without: Without = MappingProxyType({})
    ) -> Iterator[Event]:
        """The events of one conversation as the ingest has it, from SessionStarted to SessionClosed; of the
        answers to an utterance the last alone. What is named in `without` is missing, as it once was."""
        seq = 0
        with ahead(_batches(messages), _BATCHES_AHEAD) as batches:
            models = self._load()
            fusion = SessionFusion(session_id, AssemblerConfig(models.modalities), models.engine)
            for batch in batches:
                for event in self._events(models, fusion, batch, without):
                    if event.get("is_final") is False:
                        continue  # nobody waits: what may still change is not told
                    seq += 1
                    yield {"schema": event["schema"], "seq": seq, **event}

    def messages(
        self, session_id: str, sources: Sequence[Source], on_progress: Callable[[float], None], name: str
    ) -> Iterator[Message]:
        """Steps 2-6 of the walk: media of all participants, merged in time, through the conversation."""
        conversation = Conversation(session_id, self.config, start_unix_ms=0)
        yield from conversation.start(name, None, "media")
        players = _players(sources, self._listener)
        for player in players:
            pid, captions = player.source.participant_id, bool(player.source.captions)
            yield from conversation.join(pid, 0.0, audio=True, video=player.has_video, captions=captions)
        now_s = 0.0
        while players:
            player = min(players, key=lambda p: p.next_s)
            pid = player.source.participant_id
            now_s = max(now_s, player.next_s)
            chunk = player.next_chunk()
            if chunk is None:
                players.remove(player)
                cut = player.recording.truncated
                if cut is not None and cut not in self.missing:
                    self.missing.append(cut)
                for caption in player.captions_until(float("inf")):
                    yield from conversation.push_caption(pid, caption, now_s)
                yield from conversation.leave(pid, now_s, "end_of_file")
                continue
            for picture in player.pictures_until(chunk.end_s):
                conversation.push_picture(pid, picture)
            for caption in player.captions_until(chunk.end_s):
                yield from conversation.push_caption(pid, caption, chunk.end_s)
            (frames,) = hear(self._vad, [(player.listener, chunk)])
            yield from conversation.push_audio(pid, frames, chunk.end_s)
            yield from conversation.expire(now_s)
            on_progress(now_s)
        yield from conversation.close(now_s, "end_of_file")

    def _events(
        self, models: Models, fusion: SessionFusion, messages: list[Message], without: Without
    ) -> Iterator[Event]:
        """Steps 7-11: jobs to the extractors, their answers and the rest to the fusion, then the model."""
        asked = [message for message in messages if isinstance(message, Segment | Transcript)]
        jobs = [self._job(message) for message in asked]
        answers = zip(*(_answers(extractor, asked, jobs) for extractor in models.extractors), strict=True)
        outcomes: list[Outcome] = []
        for message in messages:
            if isinstance(message, Segment | Transcript):
                for answer in next(answers):
                    if answer is not None:
                        answer = _as_it_was(replace(answer, attempt=message.attempt), without)
                        outcomes += fusion.push(answer, _NO_TIME)
            else:
                assert not isinstance(message, SegmentWithdrawn)  # nothing starts early where nobody waits
                outcomes += fusion.push(message, _NO_TIME)
        pending = [outcome for outcome in outcomes if isinstance(outcome, Pending)]
        predictions = iter(models.engine.step([one.window for one in pending]))
        for outcome in outcomes:
            yield from fusion.tell(outcome, next(predictions) if isinstance(outcome, Pending) else None)
        fusion.take_traces()  # nobody goes on with a replay

    def _listener(self) -> Listener:
        return Listener(self.config.segmenter.stall_s, nonverbal=self.config.nonverbal)

    def _job(self, job: Job) -> Job:
        """The job as an extractor gets it: an utterance without given words is one for the recogniser."""
        if isinstance(job, Segment):
            if job.captions_pending:
                self._speech[job.utterance_id] = job.pcm
            return job
        speech = self._speech.pop(job.utterance_id, None)
        return speech_of(job, speech) if job.text is None and speech is not None else job

    def session_id(self, *facts: object) -> str:
        """Derived from what the input is, as `repr` tells it, and from the settings: the same replay is the
        same session."""
        told = repr((asdict(self.config), self._model_id, facts))
        return hashlib.sha256(told.encode()).hexdigest()[:32]


def _answers(extractor: Extractor, asked: Sequence[Job], jobs: Sequence[Job]) -> Sequence[Answer | None]:
    """What an extractor makes of those jobs that would reach it live, and None for the others."""
    concerned = [n for n, message in enumerate(asked) if concerns(extractor.modality, message)]
    made = iter(extractor.extract([jobs[n] for n in concerned]) if concerned else ())
    of_place = dict(zip(concerned, made, strict=True))
    return [of_place.get(n) for n in range(len(jobs))]


def _as_it_was(answer: Answer, without: Without) -> Answer:
    reason = without.get(answer.utterance_id, {}).get(answer.modality)
    if reason is None:
        return answer
    if isinstance(answer, FeaturesMissing):
        return replace(answer, reason=reason)
    return FeaturesMissing(
        answer.session_id,
        answer.utterance_id,
        answer.modality,
        reason,
        answer.took_ms,
        attempt=answer.attempt,
    )


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _batches(messages: Iterator[Message]) -> Iterator[list[Message]]:
    """All messages, in lists of as many utterances as an extractor gets at once."""
    batch: list[Message] = []
    utterances = 0
    for message in messages:
        batch.append(message)
        utterances += isinstance(message, Segment)
        if utterances == _JOBS_AT_ONCE or isinstance(message, SessionClosed):
            yield batch
            batch, utterances = [], 0


def _players(sources: Sequence[Source], listener: Callable[[], Listener]) -> list[_Player]:
    """One a source, in order; participants of one file share its decoding."""
    together: dict[Path, list[int | None]] = {}
    for source in sources:
        together.setdefault(source.path, []).append(source.channel)
    recordings = {path: Recording.open(path) for path in together}
    tracks = {path: iter(recordings[path].tracks(channels)) for path, channels in together.items()}
    return [
        _Player(source, recordings[source.path], gated(next(tracks[source.path]), source.turns), listener())
        for source in sources
    ]


class _Player:
    """One participant's part of a recording being read forward."""

    def __init__(
        self, source: Source, recording: Recording, audio: Iterator[AudioChunk], listener: Listener
    ) -> None:
        self.source = source
        self.recording = recording
        self.listener = listener
        self.has_video = recording.has_video
        self._audio = audio
        self._chunk = next(self._audio, None)
        self._end_s = 0.0
        self._pictures: Iterator[Picture] = recording.pictures() if recording.has_video else iter(())
        self._picture = next(self._pictures, None)
        self._captions: list[Caption] = sorted(source.captions, key=lambda c: (c.end_s, c.start_s))

    @property
    def next_s(self) -> float:
        """Time of the next piece of audio, or of the end."""
        return self._end_s if self._chunk is None else self._chunk.start_s

    def next_chunk(self) -> AudioChunk | None:
        """The next piece of audio; None at the end."""
        chunk = self._chunk
        if chunk is not None:
            self._end_s, self._chunk = chunk.end_s, next(self._audio, None)
        return chunk

    def pictures_until(self, end_s: float) -> Iterator[Picture]:
        """Pictures up to a time, each once."""
        while self._picture is not None and self._picture.at_ms <= end_s * 1000:
            yield self._picture
            self._picture = next(self._pictures, None)

    def captions_until(self, end_s: float) -> Iterator[Caption]:
        """Captions whose words have been spoken by then, each once."""
        while self._captions and self._captions[0].end_s <= end_s:
            yield self._captions.pop(0)
