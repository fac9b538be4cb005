"""Speech probabilities of one participant in, utterances out. Sans-I/O: no clock, no await, no logging.

An utterance opens when `min_speech_s` of speech has been heard and ends after `min_silence_s` without any,
at a stall of the media, at the maximum length (cut at the weakest point of its last stretch) or by `flush`.
It reaches from `pad_s` before its first speech frame to `pad_s` after its last one; its PCM begins up to
`pre_roll_s` earlier still, because soft first consonants lie below every threshold.

No later utterance of this participant ends before `settled_s`: that is what orders a conversation.

After `early_s` of silence, less than what ends an utterance, it says how the utterance would end, so that
work on it can begin. Nothing is decided by that: further silence makes it the end, the same to the sample,
and speech takes it back.

An utterance that has ended may be taken up again: whoever goes on within `resume_s` continues it, its start
unmoved, and it ends anew. Once that cannot happen any more it is settled.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from realtime.messages import SAMPLE_RATE_HZ, AudioChunk, Pcm

_FAINT = 0.04  # P(voice) that is no silence, where part of the sound was lost; silence has a tenth of it
_REST_S = 0.5  # least sound left for what continues an over-long utterance: a shorter one says nothing
_ONSET_S = 0.13  # how far before the first speech frame its onset may lie in a hole


@dataclass(frozen=True, slots=True)
class SegmenterConfig:
    """Endpointing, all in seconds of session time."""

    threshold: float = 0.35  # P(voice) that begins speech; quiet telephone speech stays below .5
    release: float = 0.2  # P(voice) below which speech pauses
    min_speech_s: float = 0.12  # short backchannels ("mm") must pass
    min_silence_s: float = 0.3  # silence that ends an utterance
    resume_s: float = 0.8  # silence after which it cannot be taken up again; 0 = never taken up
    max_length_s: float = 8.0
    cut_search_s: float = 1.5  # the last stretch in which an over-long utterance is cut
    pad_s: float = 0.15  # kept around the speech
    pre_roll_s: float = 0.3  # PCM kept before the utterance begins
    stall_s: float = 0.5  # no media for this long ends an open utterance: muted, DTX or gone

    def __post_init__(self) -> None:
        if not 0.0 < self.release <= self.threshold < 1.0:
            raise ValueError("0 < release <= threshold < 1 must hold")
        if not 0.0 <= self.pad_s <= self.min_silence_s:
            raise ValueError("pad_s must lie between 0 and min_silence_s")
        if self.resume_s and self.resume_s < self.min_silence_s:
            raise ValueError("resume_s must be 0 or at least min_silence_s")
        if not 0.0 < self.cut_search_s < self.max_length_s:
            raise ValueError("cut_search_s must be shorter than max_length_s")


@dataclass(frozen=True, slots=True)
class Onset:
    """An utterance began."""

    start_s: float


@dataclass(frozen=True, slots=True)
class Reopened:
    """The speaker went on: the utterance that ended last has not ended."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The utterance that ended last will not be taken up again."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An utterance ended. `pcm` starts at `pcm_start_s` and ends at `end_s`."""

    start_s: float
    end_s: float
    speech_end_s: float  # end of its last speech frame, the pad not included
    decided_s: float  # session time at which the end was decided
    pcm_start_s: float
    pcm: Pcm
    lost_s: float  # part of it that never arrived and is silence in `pcm`
    continues: bool  # cut at the maximum length: the next utterance carries on
    may_resume: bool = False  # it may be Reopened; a Settled follows where it is not


@dataclass(frozen=True, slots=True)
class Pause:
    """An utterance seems to end: its Cut, if nothing more is said before the decision."""

    cut: Cut


@dataclass(frozen=True, slots=True)
class Resumed:
    """The speaker goes on after a Pause: what it said does not hold."""


Decision = Onset | Pause | Resumed | Cut | Reopened | Settled


@dataclass(frozen=True, slots=True)
class HeardFrame:
    """One frame of audio and what the VAD made of it."""

    chunk: AudioChunk
    p: float  # P(speech)
    lost_s: float = 0.0  # part of it that is filled-in silence


@dataclass(frozen=True, slots=True)
class _Ended:
    """The last utterance, while it may be taken up again."""

    speech_start_s: float
    speech_end_s: float
    taken_s: float  # everything before it belonged to earlier ones


class Segmenter:
    """Endpointing of one participant."""

    def __init__(self, config: SegmenterConfig, early_s: float = 0.0) -> None:
        """`early_s`: silence after which a Pause is told, 0 = never."""
        self._config = config
        # Not before the pad is heard: from then on the Pause and the Cut after it are the same samples.
        self._early_s = max(early_s, config.pad_s) if early_s else 0.0
        # Since the pre-roll of what is open or may be taken up again; when idle, the last pre-roll.
        self._frames: deque[HeardFrame] = deque()
        self._speech_start_s: float | None = None  # first frame of the current run of speech
        self._speech_end_s = 0.0  # end of the last speech frame
        self._speech_s = 0.0  # speech heard in the current run
        self._open = False
        self._pausing = False  # a Pause was told, and nothing has been said since
        self._ended: _Ended | None = None
        self._taken_s = float("-inf")  # everything before it belongs to an earlier utterance
        self._position_s = 0.0

    @property
    def is_open(self) -> bool:
        """True while an utterance has begun and not ended."""
        return self._open

    @property
    def position_s(self) -> float:
        """Session time just after the last frame."""
        return self._position_s

    @property
    def settled_s(self) -> float:
        """No later utterance of this participant will end before this time."""
        config = self._config
        if self._speech_start_s is None:
            return self._position_s
        earliest_cut_s = self._speech_start_s - config.pad_s + config.max_length_s - config.cut_search_s
        return min(self._speech_end_s + config.pad_s, self._position_s, earliest_cut_s)

    def push(self, frame: HeardFrame) -> list[Decision]:
        """Next frame (any length, normally 32 ms), following the one before without a hole."""
        chunk, p = frame.chunk, frame.p
        out = self.expire(chunk.start_s)  # a stall of the media ends what was open before it
        self._frames.append(frame)
        self._position_s = chunk.end_s
        running = self._speech_start_s is not None
        if p >= (self._config.release if running else self._config.threshold):
            if self._speech_start_s is None:
                self._speech_start_s, self._speech_s = self._onset_s(), 0.0
            self._speech_end_s = chunk.end_s
            self._speech_s += chunk.end_s - chunk.start_s
            if self._pausing:
                self._pausing = False
                out.append(Resumed())
            if not self._open and self._speech_s >= self._config.min_speech_s - 1e-9:
                out += self._begin()
        return out + self._settle_in_time() + self._endpoint()

    def expire(self, now_s: float) -> list[Decision]:
        """Absence of media is silence on the session clock."""
        if self._frames and now_s - self._position_s >= self._config.stall_s - 1e-9:
            return self.flush(now_s)
        return []

    def deadline(self) -> float | None:
        """Session time at which `expire` would end something, if no media comes; None when idle."""
        undecided = self._open or self._ended is not None
        return self._position_s + self._config.stall_s if undecided else None

    def flush(self, now_s: float) -> list[Decision]:
        """The participant leaves or stalls: end what is open now."""
        out: list[Decision] = [self._cut(self._speech_end_s, now_s)] if self._open else []
        out += self.settle()
        self._forget_run()
        self._frames.clear()
        return out

    def settle(self) -> list[Decision]:
        """The last utterance is not to be taken up again, whatever is heard next."""
        if self._ended is None:
            return []
        self._ended = None
        return [Settled()]

    def _begin(self) -> list[Decision]:
        """Enough was said: the last utterance goes on, or another begins."""
        assert self._speech_start_s is not None
        self._open = True
        ended, self._ended = self._ended, None
        if ended is None:
            return [Onset(self._start_s())]
        config = self._config
        near = self._speech_start_s - ended.speech_end_s <= config.resume_s + 1e-9
        # Before the last stretch of its greatest length, so that a cut there finds all of it after the pause.
        room = self._position_s - ended.speech_start_s < config.max_length_s - config.cut_search_s
        if not (near and room):
            return [Settled(), Onset(self._start_s())]
        self._speech_start_s, self._taken_s = ended.speech_start_s, ended.taken_s
        return [Reopened()]

    def _onset_s(self) -> float:
        """Where speech that is heard in the newest frame began: in a hole before it, if something was faint
        there. A detector that missed the onset takes longer to believe the rest."""
        newest_s = onset_s = self._frames[-1].chunk.start_s
        for frame in reversed(self._frames):
            if frame.p < _FAINT or newest_s - frame.chunk.start_s > _ONSET_S:
                break
            if frame.lost_s > 0:
                onset_s = frame.chunk.start_s
        return onset_s

    def _settle_in_time(self) -> list[Decision]:
        silent_until_s = self._position_s if self._speech_start_s is None else self._speech_start_s
        if self._ended and silent_until_s - self._ended.speech_end_s > self._config.resume_s + 1e-9:
            return self.settle()
        return []

    def _endpoint(self) -> list[Decision]:
        if self._speech_start_s is None:
            self._trim(self._position_s - self._config.pre_roll_s - self._config.pad_s)
            return []
        silence_s = self._position_s - self._speech_end_s
        if silence_s >= self._config.min_silence_s - 1e-9:
            out: list[Decision] = []
            if self._open:
                before = _Ended(self._speech_start_s, self._speech_end_s, self._taken_s)
                may_resume = self._config.resume_s > 0
                out.append(replace(self._cut(self._speech_end_s, self._position_s), may_resume=may_resume))
                self._ended = before if may_resume else None
            self._forget_run()
            return out
        if self._open and self._position_s - self._start_s() >= self._config.max_length_s - 1e-9:
            return self._cut_weakest()
        if self._open and not self._pausing and 0 < self._early_s <= silence_s + 1e-9:
            self._pausing = True
            return [Pause(self._draft(self._speech_end_s, self._position_s))]
        return []

    def _cut_weakest(self) -> list[Decision]:
        """Cut an over-long utterance where speech was least likely, and open its continuation."""
        since_s = self._position_s - self._config.cut_search_s
        until_s = self._position_s - min(_REST_S, self._config.cut_search_s / 2)
        late = [f for f in self._frames if since_s - 1e-9 <= f.chunk.start_s and f.chunk.end_s <= until_s]
        weakest = min(late, key=lambda frame: (frame.p, float(np.square(frame.chunk.pcm).mean())))
        at_s = weakest.chunk.end_s
        speaks_on = [
            f for f in self._frames if f.chunk.start_s >= at_s - 1e-9 and f.p >= self._config.release
        ]
        end_s = at_s - self._config.pad_s
        out: list[Decision] = [self._cut(end_s, self._position_s, continues=bool(speaks_on))]
        if not speaks_on:
            self._forget_run()
            return out
        self._speech_start_s = speaks_on[0].chunk.start_s
        self._speech_end_s = speaks_on[-1].chunk.end_s
        self._speech_s = sum(frame.chunk.end_s - frame.chunk.start_s for frame in speaks_on)
        self._open = True
        return [*out, Onset(self._start_s())]

    def _start_s(self) -> float:
        assert self._speech_start_s is not None
        return max(self._speech_start_s - self._config.pad_s, self._taken_s, 0.0)

    def _cut(self, speech_end_s: float, decided_s: float, *, continues: bool = False) -> Cut:
        cut = replace(self._draft(speech_end_s, decided_s), continues=continues)
        self._taken_s, self._open, self._pausing = cut.end_s, False, False
        return cut

    def _draft(self, speech_end_s: float, decided_s: float) -> Cut:
        start_s = self._start_s()
        end_s = max(min(speech_end_s + self._config.pad_s, self._position_s), start_s)
        self._trim(start_s - self._config.pre_roll_s)
        pcm_start_s, pcm = self._samples_until(end_s)
        lost_s = sum(f.lost_s for f in self._frames if start_s <= f.chunk.start_s < end_s)
        return Cut(
            start_s, end_s, min(speech_end_s, end_s), decided_s, pcm_start_s, pcm, lost_s, continues=False
        )

    def _samples_until(self, end_s: float) -> tuple[float, Pcm]:
        pcm = np.concatenate([frame.chunk.pcm for frame in self._frames])
        first_s = self._frames[0].chunk.start_s
        skip = round((self._taken_s - first_s) * SAMPLE_RATE_HZ) if self._taken_s > first_s else 0
        stop = round((end_s - first_s) * SAMPLE_RATE_HZ)
        return first_s + skip / SAMPLE_RATE_HZ, pcm[skip:stop].copy()

    def _trim(self, before_s: float) -> None:
        if self._ended is not None:
            return
        while self._frames and self._frames[0].chunk.end_s <= max(before_s, self._taken_s) + 1e-9:
            self._frames.popleft()

    def _forget_run(self) -> None:
        self._speech_start_s, self._open, self._pausing = None, False, False
