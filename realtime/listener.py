"""Audio of one participant cut into exact frames without holes, each with its probability of voice.

A hole shorter than `stall_s` is filled to exactly its length and marked as lost: with the sound before it,
which fades into silence, so that a lost packet within a word is not taken for its end. After a longer hole
the frames start anew and the VAD forgets. Audio that lies before what was already heard is a repeat and is
cut away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from realtime.loudness import LoudVoice
from realtime.messages import SAMPLE_RATE_HZ, AudioChunk, Pcm
from realtime.segmenter import HeardFrame
from realtime.vad import FRAME_SAMPLES, Floats, VadModel, VoiceActivity, judge

_ECHO = 320  # samples of sound that a hole begins with, to and fro
_FADE = 960  # samples until silence
_SLACK_S = 0.005  # clocks that differ by less are the same: rounding of RTP times is no hole


@dataclass(frozen=True, slots=True)
class _Framed:
    """T whole frames, one after the other."""

    pcm: Pcm  # [T·512]
    lost: NDArray[np.bool_]  # [T·512] which samples were filled in
    start_s: float  # session time


class Listener:
    """Framing and voice of one participant. Called from one thread at a time, by `hear`."""

    def __init__(self, stall_s: float, *, nonverbal: bool = True) -> None:
        """`nonverbal`: loud voice without words counts too (see realtime.loudness)."""
        self.activity = VoiceActivity()
        self._loud = LoudVoice() if nonverbal else None
        self._stall_s = stall_s
        self._pcm: Pcm = np.zeros(0, np.float32)  # heard, not yet framed
        self._before: Pcm = np.zeros(0, np.float32)  # the last _ECHO samples heard
        self._lost = np.zeros(0, bool)  # which of those samples were filled in
        self._next_s: float | None = None  # session time just after `_pcm`

    def frame(self, chunk: AudioChunk) -> _Framed:
        """Next piece of audio (any length) → the whole frames it completes."""
        pcm, start_s = np.nan_to_num(chunk.pcm), chunk.start_s  # a float file may hold anything
        if self._next_s is None or start_s - self._next_s >= self._stall_s:
            self._pcm, self._lost, self._next_s = pcm[:0], self._lost[:0], start_s
            self._before = pcm[:0]
            self.activity.reset()
        hole = start_s - self._next_s
        if hole > _SLACK_S:
            self._append(self._concealed(round(hole * SAMPLE_RATE_HZ)), lost=True)
        elif hole < -_SLACK_S:
            pcm = pcm[round(-hole * SAMPLE_RATE_HZ) :]
        self._append(pcm, lost=False)
        first_s = self._next_s - len(self._pcm) / SAMPLE_RATE_HZ
        whole = len(self._pcm) // FRAME_SAMPLES * FRAME_SAMPLES
        framed = _Framed(self._pcm[:whole], self._lost[:whole], first_s)
        self._pcm, self._lost = self._pcm[whole:], self._lost[whole:]
        return framed

    def judged(self, framed: _Framed, speech: Floats) -> list[HeardFrame]:
        """The frames with P(speech) [T] of each, and with what loudness says beside it."""
        frames = []
        lost = framed.lost.reshape(-1, FRAME_SAMPLES).sum(axis=1) / SAMPLE_RATE_HZ
        for n, (p, lost_s) in enumerate(zip(speech.tolist(), lost.tolist(), strict=True)):
            at = n * FRAME_SAMPLES
            pcm = framed.pcm[at : at + FRAME_SAMPLES].copy()  # not a view that keeps the whole chunk
            if self._loud is not None:
                p = max(p, self._loud.push(pcm))
            frames.append(HeardFrame(AudioChunk(pcm, framed.start_s + at / SAMPLE_RATE_HZ), p, lost_s))
        return frames

    def _append(self, pcm: Pcm, *, lost: bool) -> None:
        assert self._next_s is not None
        self._pcm = np.concatenate([self._pcm, pcm])
        self._lost = np.concatenate([self._lost, np.full(len(pcm), lost)])
        self._next_s += len(pcm) / SAMPLE_RATE_HZ
        self._before = pcm[-_ECHO:] if len(pcm) >= _ECHO else np.concatenate([self._before, pcm])[-_ECHO:]

    def _concealed(self, samples: int) -> Pcm:
        """What stands in a hole."""
        pcm = np.zeros(samples, np.float32)
        if len(self._before):
            to_and_fro = np.concatenate([self._before[::-1], self._before])  # without a jump where it begins
            fading = min(samples, _FADE)
            pcm[:fading] = (
                np.resize(to_and_fro, fading) * np.linspace(1.0, 0.0, _FADE, dtype=np.float32)[:fading]
            )
        return pcm


def hear(model: VadModel, heard: Sequence[tuple[Listener, AudioChunk]]) -> list[list[HeardFrame]]:
    """The next audio of some participants, each at most once → the whole frames it completes, of each."""
    framed = [listener.frame(chunk) for listener, chunk in heard]
    listeners = [listener for listener, _ in heard]
    speech = judge(model, [(who.activity, each.pcm) for who, each in zip(listeners, framed, strict=True)])
    return [who.judged(each, p) for who, each, p in zip(listeners, framed, speech, strict=True)]
