"""Audio of one participant cut into exact frames without holes, each with its probability of voice.

A hole shorter than `stall_s` is filled with silence of exactly its length and marked as lost; after a
longer one the frames start anew and the VAD forgets. Audio that lies before what was already heard is a
repeat and is cut away.
"""

from __future__ import annotations

import numpy as np

from realtime.loudness import LoudVoice
from realtime.messages import SAMPLE_RATE_HZ, AudioChunk, Pcm
from realtime.segmenter import HeardFrame
from realtime.vad import FRAME_SAMPLES, VoiceActivity

_SLACK_S = 0.005  # clocks that differ by less are the same: rounding of RTP times is no hole


class Listener:
    """Framing and speech probability of one participant. Called from one thread at a time."""

    def __init__(self, activity: VoiceActivity, stall_s: float, *, nonverbal: bool = True) -> None:
        """`nonverbal`: loud voice without words counts too (see realtime.loudness)."""
        self._activity = activity
        self._loud = LoudVoice() if nonverbal else None
        self._stall_s = stall_s
        self._pcm: Pcm = np.zeros(0, np.float32)  # heard, not yet framed
        self._lost = np.zeros(0, bool)  # which of those samples were filled in
        self._next_s: float | None = None  # session time just after `_pcm`

    def hear(self, chunk: AudioChunk) -> list[HeardFrame]:
        """Next piece of audio (any length) → the whole frames it completes."""
        pcm, start_s = np.nan_to_num(chunk.pcm), chunk.start_s  # a float file may hold anything
        if self._next_s is None or start_s - self._next_s >= self._stall_s:
            self._pcm, self._lost, self._next_s = pcm[:0], self._lost[:0], start_s
            self._activity.reset()
        hole = start_s - self._next_s
        if hole > _SLACK_S:
            self._append(np.zeros(round(hole * SAMPLE_RATE_HZ), np.float32), lost=True)
        elif hole < -_SLACK_S:
            pcm = pcm[round(-hole * SAMPLE_RATE_HZ) :]
        self._append(pcm, lost=False)
        return self._frames()

    def _append(self, pcm: Pcm, *, lost: bool) -> None:
        assert self._next_s is not None
        self._pcm = np.concatenate([self._pcm, pcm])
        self._lost = np.concatenate([self._lost, np.full(len(pcm), lost)])
        self._next_s += len(pcm) / SAMPLE_RATE_HZ

    def _frames(self) -> list[HeardFrame]:
        assert self._next_s is not None
        first_s = self._next_s - len(self._pcm) / SAMPLE_RATE_HZ
        whole = len(self._pcm) // FRAME_SAMPLES
        frames = []
        for n in range(whole):
            part = slice(n * FRAME_SAMPLES, (n + 1) * FRAME_SAMPLES)
            pcm = self._pcm[part].copy()
            lost_s = float(self._lost[part].sum()) / SAMPLE_RATE_HZ
            start_s = first_s + part.start / SAMPLE_RATE_HZ
            p = self._activity.push(pcm)
            if self._loud is not None:
                p = max(p, self._loud.push(pcm))
            frames.append(HeardFrame(AudioChunk(pcm, start_s), p, lost_s))
        self._pcm, self._lost = self._pcm[whole * FRAME_SAMPLES :], self._lost[whole * FRAME_SAMPLES :]
        return frames
