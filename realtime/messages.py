"""The nouns that travel: frozen, slotted, numpy only.

Times with `_s` are float seconds on the session clock (zero = the first join); `_ms` are integers of the
same clock. `at_unix_ms` is wall-clock time, for people and deadlines, never for ordering. Inside a process
the cores pass seconds; what crosses a process boundary carries milliseconds, so that it survives JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
Modality = Literal["text", "audio", "visual"]
MODALITIES: tuple[Modality, ...] = ("text", "audio", "visual")

Pcm = NDArray[np.float32]  # [T] mono, 16 kHz, nominally -1..1
Vector = NDArray[np.float32]  # [D]


# ---- inside the ingest process -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Mono speech samples on the session clock."""

    pcm: Pcm
    start_s: float  # time of the first sample

    @property
    def end_s(self) -> float:
        """Time just after the last sample, seconds."""
        return self.start_s + len(self.pcm) / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One sampled picture."""

    rgb: NDArray[np.uint8]  # [H, W, 3]
    at_s: float


@dataclass(frozen=True, slots=True)
class Picture:
    """One sampled picture as it is kept and sent: JPEG bytes."""

    jpeg: bytes
    at_ms: int


@dataclass(frozen=True, slots=True)
class Caption:
    """Words of one participant, on the session clock."""

    start_s: float
    end_s: float
    text: str
    language: str | None = None  # BCP 47, e.g. "en"; None = not said


# ---- to the extractors (work stream) -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    """One utterance as media. `pcm` starts at `pcm_start_ms` (pre-roll before `start_ms`)."""

    session_id: str
    participant_id: str
    utterance_id: str
    start_ms: int  # first speech frame less the pad
    end_ms: int  # last speech frame plus the pad
    pcm_start_ms: int
    pcm: Pcm
    pictures: tuple[Picture, ...]
    visual_reason: (
        str | None
    )  # why there are no pictures: "no_video" | "no_frames" | "text_only"; None: there are
    text: str | None  # given transcript, if one had arrived
    language: str | None
    captions_pending: bool  # True: the words come later as a Transcript; do not recognise speech yet
    deadline_unix_ms: int  # past it the job is stale: answer FeaturesMissing("deadline"); 0 = never
    attempt: int = 0  # which of its utterance's segments this is; answers carry it on
    early: bool = False  # sent before the end was decided: the speaker may still go on
    text_only: bool = False  # nothing may be read from its sound but the words


@dataclass(frozen=True, slots=True)
class Transcript:
    """The given words of an utterance whose Segment said `captions_pending`, or a later correction.

    `text` None: no caption came in time; recognise the speech if you can.
    """

    session_id: str
    participant_id: str
    utterance_id: str
    text: str | None
    language: str | None
    deadline_unix_ms: int
    attempt: int = 0  # of the segment that its utterance was announced with


@dataclass(frozen=True, slots=True)
class SegmentWithdrawn:
    """An early segment turned out not to be its utterance's: its media go, its answers count for nothing."""

    session_id: str
    participant_id: str
    utterance_id: str
    attempt: int
    reason: str  # "resumed": the speaker went on | "changed": other words, pictures or another end


# ---- to the fusion (inbox stream) ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionStarted:
    session_id: str
    room: str
    at_unix_ms: int  # wall-clock time of session zero; 0 = unknown (replay of an undated file)
    purpose: str | None
    clock: str  # "arrival" (RTP mapped by arrival) | "media" (a file's own time)


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    session_id: str
    participant_id: str
    at_ms: int
    consent: str | None = None  # version of the notice that was agreed to; None = none was declared


@dataclass(frozen=True, slots=True)
class UtteranceStarted:
    session_id: str
    participant_id: str
    utterance_id: str
    start_ms: int


@dataclass(frozen=True, slots=True)
class UtteranceEnded:
    """An utterance took its place in the conversation: entries arrive here in order of `index`.

    One that was taken up again comes once more when it has ended anew, with its index and another attempt.
    """

    session_id: str
    participant_id: str
    utterance_id: str
    index: int  # 0.. in conversation order (end_ms, participant_id)
    start_ms: int
    end_ms: int
    continues: bool  # cut at the maximum length: the speaker's next utterance carries on
    lost_ms: int  # audio missing inside it
    endpoint_ms: int  # from the end of speech to the decision that it had ended
    decided_unix_ms: int  # wall-clock time of that decision; 0 in replay
    attempt: int = 0  # of its segment: answers to any other are void
    may_resume: bool = False  # its speaker may still go on; UtteranceSettled says when not any more


@dataclass(frozen=True, slots=True)
class UtteranceSettled:
    """An utterance that might have been taken up again was not: its media and its end are final."""

    session_id: str
    participant_id: str
    utterance_id: str


@dataclass(frozen=True, slots=True)
class UtteranceDropped:
    session_id: str
    participant_id: str
    utterance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Features:
    """What one extractor made of one utterance."""

    session_id: str
    utterance_id: str
    modality: Modality
    extractor: str  # "name/version"
    vector: Vector  # [D]
    quality: float  # 0..1
    took_ms: int
    text: str | None = None  # the words (text extractor only)
    language: str | None = None
    faces: int | None = None  # the most that were in one picture (visual extractor only)
    attempt: int = 0  # of the job


@dataclass(frozen=True, slots=True)
class FeaturesMissing:
    """An extractor's honest "nothing": a failure is a message, not a silence."""

    session_id: str
    utterance_id: str
    modality: Modality
    reason: str
    took_ms: int
    text: str | None = None  # the words, where they were known but could not be embedded
    language: str | None = None
    attempt: int = 0  # of the job


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    session_id: str
    participant_id: str
    at_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class SessionClosed:
    session_id: str
    at_ms: int
    reason: str
    started: int  # utterances started in the session, so that a reader can verify the totals


Job = Segment | Transcript
Notice = (
    SessionStarted
    | ParticipantJoined
    | UtteranceStarted
    | UtteranceEnded
    | UtteranceSettled
    | UtteranceDropped
    | ParticipantLeft
    | SessionClosed
)
Answer = Features | FeaturesMissing
InboxMessage = Notice | Answer
Message = Job | SegmentWithdrawn | InboxMessage
