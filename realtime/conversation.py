"""All participants of one session → messages, in conversation order. Sans-I/O: the heart of the ingest.

It joins segmenters, captions and pictures into utterances, and gives every utterance its place: an
UtteranceEnded leaves once no participant can still end an utterance before it, so their `index` follows
(end_ms, participant_id); an utterance that is taken up again after that keeps its place. Words that end a
sentence end their utterance for good. Media (Segment, Transcript) leaves at once; only the announcement
waits. Where the caller allows it media leaves even before the end is decided (see realtime.early).

The same object serves live calls and offline replay: callers pass the session time in.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from realtime.captioning import CaptionTrack, Words
from realtime.early import EarlyStart
from realtime.messages import (
    Caption,
    Message,
    ParticipantJoined,
    ParticipantLeft,
    Pcm,
    Picture,
    Segment,
    SessionClosed,
    SessionStarted,
    Transcript,
    UtteranceEnded,
    UtteranceSettled,
    UtteranceStarted,
)
from realtime.segmenter import (
    Cut,
    Decision,
    HeardFrame,
    Onset,
    Pause,
    Reopened,
    Resumed,
    Segmenter,
    SegmenterConfig,
    Settled,
)

_NEVER_S = 1e9  # later than any session lasts, and still a number that milliseconds can be made of


@dataclass(frozen=True, slots=True)
class ConversationConfig:
    """What the ingest decides about utterances."""

    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    text_only: bool = False  # feelings are read from words alone: never from a voice or a face
    nonverbal: bool = True  # laughter and cries are utterances too; costs a false one per knock or ring
    caption_grace_s: float = 0.8  # how long after its end an utterance waits for its caption
    pictures_per_utterance: int = 8
    job_deadline_s: float = 10.0  # after it no worker touches the utterance's media any more

    def __post_init__(self) -> None:
        if self.pictures_per_utterance < 1:
            raise ValueError("pictures_per_utterance must be at least 1")
        if min(self.caption_grace_s, self.job_deadline_s) <= 0:
            raise ValueError("caption_grace_s and job_deadline_s must be positive")


@dataclass(slots=True)
class _Participant:
    id: str
    audio: bool
    video: bool
    segmenter: Segmenter
    captions: CaptionTrack | None
    pictures: deque[Picture]
    heard_s: float  # when audio last came, session time; its own time may lie well before
    count: int = 0  # utterances started
    open_id: str = ""
    early: EarlyStart = field(default_factory=EarlyStart)  # of the open utterance, or the last one
    unsettled_id: str = ""  # the last utterance, while it may be taken up again
    unsettled_index: int | None = None  # its place, once it was announced


class Conversation:
    """One session from first join to close. `now_s` is session time, seconds."""

    def __init__(
        self, session_id: str, config: ConversationConfig, start_unix_ms: int, early_s: float = 0.0
    ) -> None:
        """`early_s`: silence after which an utterance's media may leave early, 0 = never."""
        self.session_id = session_id
        self._config = config
        self._early_s = early_s
        self._start_unix_ms = start_unix_ms  # 0: the wall-clock time is unknown
        self._participants: dict[str, _Participant] = {}
        self._counts: dict[str, int] = {}  # utterances of those who left, so that a return goes on counting
        self._held: list[tuple[int, str, UtteranceEnded]] = []  # heap in conversation order
        self._index = 0
        self._started = 0

    @property
    def participants(self) -> tuple[str, ...]:
        """Who is in the conversation now."""
        return tuple(self._participants)

    @property
    def started(self) -> int:
        """Utterances started so far."""
        return self._started

    def start(self, room: str, purpose: str | None, clock: str) -> list[Message]:
        """First message of a session."""
        return [SessionStarted(self.session_id, room, self._start_unix_ms, purpose, clock)]

    def join(
        self,
        pid: str,
        now_s: float,
        *,
        audio: bool,
        video: bool,
        captions: bool,
        consent: str | None = None,
    ) -> list[Message]:
        """A participant enters with what was negotiated, and the notice that was agreed to."""
        self._participants[pid] = _Participant(
            pid, audio, video, Segmenter(self._config.segmenter, self._early_s),
            CaptionTrack(self._config.caption_grace_s) if captions else None,
            deque(maxlen=round(16 * (self._config.segmenter.max_length_s + 1))),
            heard_s=now_s, count=self._counts.get(pid, 0),
        )  # fmt: skip
        return [ParticipantJoined(self.session_id, pid, round(now_s * 1000), consent)]

    def push_audio(
        self, pid: str, frames: list[HeardFrame], now_s: float, *, early: bool = False
    ) -> list[Message]:
        """Frames of one participant, in order. `early`: there is room for work that may be in vain."""
        who = self._participants[pid]
        who.heard_s = now_s
        out: list[Message] = []
        for frame in frames:
            out += self._utterances(who, who.segmenter.push(frame), now_s, early=early)
        return out + self._release(now_s)

    def push_picture(self, pid: str, picture: Picture) -> None:
        """One sampled picture; kept until no utterance can need it."""
        if not self._config.text_only:
            self._participants[pid].pictures.append(picture)

    def push_caption(self, pid: str, caption: Caption, now_s: float) -> list[Message]:
        """Words of one participant. Where no audio is sent, they are an utterance by themselves."""
        who = self._participants[pid]
        if not who.audio:
            return self._utter(who, caption, np.zeros(0, np.float32), now_s) + self._release(now_s)
        if who.captions is None:
            return []  # no channel was negotiated, so nobody waits for words
        utterance_id = who.captions.add(caption, who.open_id)
        if utterance_id is None:
            return []
        out = self._transcript(who, utterance_id)
        if utterance_id == who.unsettled_id and _ends_sentence(who.captions.text_of(utterance_id)[0]):
            out += self._utterances(who, who.segmenter.settle(), now_s)
        return out

    def push_utterance(
        self, pid: str, said: Caption, pcm: Pcm, pictures: Sequence[Picture], now_s: float
    ) -> list[Message]:
        """A whole utterance that somebody else has cut out, of a participant who joined without audio: its
        words, its sound (16 kHz, as long as the words at most; may be empty) and its pictures."""
        who = self._participants[pid]
        who.pictures.clear()
        for picture in pictures:
            self.push_picture(pid, picture)
        return self._utter(who, said, pcm, now_s) + self._release(now_s)

    def expire(self, now_s: float) -> list[Message]:
        """Let the clock end what media no longer will. Call it several times a second."""
        out: list[Message] = []
        for who in self._participants.values():
            out += self._utterances(who, who.segmenter.expire(self._media_s(who, now_s)), now_s)
            if who.captions is not None:
                for utterance_id in who.captions.expire(now_s):
                    out += self._transcript(who, utterance_id)
        return out + self._release(now_s)

    def leave(self, pid: str, now_s: float, reason: str) -> list[Message]:
        """A participant goes; what was open ends now."""
        who = self._participants[pid]
        out = self._utterances(who, who.segmenter.flush(now_s), now_s)
        if who.captions is not None:
            for utterance_id in who.captions.expire(_NEVER_S):
                out += self._transcript(who, utterance_id)
        self._counts[pid] = who.count
        del self._participants[pid]
        out += self._release(now_s)
        return [*out, ParticipantLeft(self.session_id, pid, round(now_s * 1000), reason)]

    def close(self, now_s: float, reason: str) -> list[Message]:
        """The session ends: everybody leaves, everything held goes out."""
        out: list[Message] = []
        for pid in list(self._participants):
            out += self.leave(pid, now_s, reason)
        out += self._release(_NEVER_S)
        return [*out, SessionClosed(self.session_id, round(now_s * 1000), reason, self._started)]

    # ---- utterances

    def _utterances(
        self, who: _Participant, decisions: list[Decision], now_s: float, *, early: bool = False
    ) -> list[Message]:
        out: list[Message] = []
        for decision in decisions:
            match decision:
                case Onset():
                    out.append(self._begin(who, decision.start_s))
                case Pause():
                    if early:
                        out.append(self._start_early(who, decision.cut, now_s))
                case Resumed():
                    out += who.early.withdraw("resumed")
                case Cut():
                    out += self._end(who, decision, now_s)
                case Reopened():
                    self._reopen(who)
                case Settled():
                    out += self._settle(who)
        return out

    def _begin(self, who: _Participant, start_s: float) -> UtteranceStarted:
        who.open_id = f"{who.id}.{who.count}"
        who.early = EarlyStart()
        who.count += 1
        self._started += 1
        start_ms = round(start_s * 1000)
        if who.captions is not None and who.audio:
            who.captions.begin(who.open_id, start_s)
        return UtteranceStarted(self.session_id, who.id, who.open_id, start_ms)

    def _reopen(self, who: _Participant) -> None:
        """The last utterance goes on. What was sent of it stands until it ends anew."""
        who.open_id, who.unsettled_id = who.unsettled_id, ""
        who.early.reopen()
        if who.captions is not None:
            who.captions.reopen(who.open_id)
        self._held = [held for held in self._held if held[2].utterance_id != who.open_id]
        heapq.heapify(self._held)

    def _settle(self, who: _Participant) -> list[Message]:
        utterance_id, index = who.unsettled_id, who.unsettled_index
        who.unsettled_id, who.unsettled_index = "", None
        if index is None:
            return []  # not announced yet, and then settled from the first
        return [UtteranceSettled(self.session_id, who.id, utterance_id)]

    def _start_early(self, who: _Participant, cut: Cut, now_s: float) -> Segment:
        words = (None, None) if who.captions is None else who.captions.so_far(who.open_id, cut.end_s)
        return who.early.start(self._segment(who, cut, words, now_s))

    def _end(self, who: _Participant, cut: Cut, now_s: float, words: Caption | None = None) -> list[Message]:
        said: Words = (None, None)
        others: list[str] = []  # earlier utterances that some words turned out to belong to
        if words is not None:
            said = words.text, words.language
        elif who.captions is not None:
            others, said = who.captions.end(who.open_id, cut.end_s, max(now_s, cut.decided_s))
        if cut.may_resume and _ends_sentence(said[0]):
            who.segmenter.settle()
            cut = replace(cut, may_resume=False)
        segment = self._segment(who, cut, said, now_s)
        out = who.early.settle(segment)
        if words is None and who.captions is not None:
            who.captions.settle(who.open_id, who.early.attempt)
        ended = UtteranceEnded(
            self.session_id, who.id, who.open_id, -1, segment.start_ms, segment.end_ms, cut.continues,
            round(cut.lost_s * 1000), round((cut.decided_s - cut.speech_end_s) * 1000),
            self._unix_ms(max(now_s, cut.decided_s)), who.early.attempt,
        )  # fmt: skip
        place = who.unsettled_index
        if place is None:
            heapq.heappush(self._held, (segment.end_ms, who.id, ended))
        else:  # taken up again after it was announced
            out.append(replace(ended, index=place, may_resume=cut.may_resume))
        who.unsettled_id = who.open_id if cut.may_resume else ""
        who.unsettled_index = place if cut.may_resume else None
        who.open_id = ""
        return out + [message for other in others for message in self._transcript(who, other)]

    def _segment(self, who: _Participant, cut: Cut, words: Words, now_s: float) -> Segment:
        start_ms, end_ms = round(cut.start_s * 1000), round(cut.end_s * 1000)
        pictures = self._pictures(who, start_ms, end_ms)
        reason = None if pictures else "no_frames" if who.video else "no_video"
        if self._config.text_only:
            reason = "text_only"
        return Segment(
            self.session_id, who.id, who.open_id, start_ms, end_ms, round(cut.pcm_start_s * 1000), cut.pcm,
            pictures, reason, *words,
            captions_pending=who.captions is not None and words[0] is None,
            deadline_unix_ms=self._deadline(now_s), text_only=self._config.text_only,
        )  # fmt: skip

    def _utter(self, who: _Participant, said: Caption, pcm: Pcm, now_s: float) -> list[Message]:
        """An utterance whose bounds are given: nothing is heard that could claim or merge its words."""
        started = self._begin(who, said.start_s)
        decided_s = max(now_s, said.end_s)
        cut = Cut(said.start_s, said.end_s, said.end_s, decided_s, said.start_s, pcm, 0.0, continues=False)
        return [started, *self._end(who, cut, now_s, said)]

    def _transcript(self, who: _Participant, utterance_id: str) -> list[Message]:
        assert who.captions is not None
        text, language = who.captions.text_of(utterance_id)
        deadline = self._deadline(who.captions.end_of(utterance_id))
        attempt = who.captions.attempt_of(utterance_id)
        return [Transcript(self.session_id, who.id, utterance_id, text, language, deadline, attempt)]

    def _pictures(self, who: _Participant, start_ms: int, end_ms: int) -> tuple[Picture, ...]:
        while who.pictures and who.pictures[0].at_ms < start_ms:
            who.pictures.popleft()
        seen = [picture for picture in who.pictures if picture.at_ms <= end_ms]
        keep = self._config.pictures_per_utterance
        if len(seen) <= keep:
            return tuple(seen)
        return tuple(
            seen[(2 * i + 1) * len(seen) // (2 * keep)] for i in range(keep)
        )  # evenly, from the middle

    # ---- order

    def _release(self, now_s: float) -> list[Message]:
        """Announce every held utterance that nobody can precede any more."""
        settled_s = min(
            (self._settled_s(who, now_s) for who in self._participants.values()), default=_NEVER_S
        )
        out: list[Message] = []
        while self._held and self._held[0][0] < round(settled_s * 1000):
            ended = heapq.heappop(self._held)[2]
            who = self._participants.get(ended.participant_id)
            may_resume = who is not None and who.unsettled_id == ended.utterance_id
            if who is not None and may_resume:
                who.unsettled_index = self._index
            out.append(replace(ended, index=self._index, may_resume=may_resume))
            self._index += 1
        return out

    def _settled_s(self, who: _Participant, now_s: float) -> float:
        if not who.audio:
            return _NEVER_S  # words alone come when they come: nobody waits for them
        settled_s = who.segmenter.settled_s
        if who.segmenter.is_open:
            return settled_s
        return max(settled_s, self._media_s(who, now_s) - self._config.segmenter.stall_s)

    def _media_s(self, who: _Participant, now_s: float) -> float:
        """Where this participant's media should be now. A stall is silence since something last came, not
        the distance of media from the clock: a jitter buffer or a busy machine may lag for good."""
        return who.segmenter.position_s + max(0.0, now_s - who.heard_s)

    # ---- wall clock

    def _unix_ms(self, at_s: float) -> int:
        return self._start_unix_ms + round(at_s * 1000) if self._start_unix_ms else 0

    def _deadline(self, from_s: float) -> int:
        return self._unix_ms(from_s + self._config.job_deadline_s)


def _ends_sentence(text: str | None) -> bool:
    """Whether somebody who says this has said it all; dots that trail off are no end."""
    said = (text or "").rstrip().rstrip("\"'”’»)")
    return said.endswith((".", "!", "?", "。", "！", "？")) and not said.endswith("..")
