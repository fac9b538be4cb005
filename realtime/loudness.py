"""Voice without words: laughter, a sob, a cry. Sans-I/O, one per participant.

Speech detectors are trained to pass over such sounds (Silero gives loud laughter a probability of 0), yet
they carry more feeling than most sentences. A frame counts as voiced when it stands far above the noise
floor of its own track and its neighbours do so too: a key click or a knock is too short to count.
Steady noise and music that goes on raise the floor and stop counting within `_MEMORY_FRAMES`. What it cannot
tell from a voice: a knock of a third of a second, a ring tone, a burst of noise; where such sounds are
common, set `session.conversation.nonverbal = false`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

from realtime.messages import Pcm

EVIDENCE = 0.6  # what a voiced frame is worth beside a speech probability
_ABOVE_FLOOR_DB = 20.0
_LEAST_DBFS = -50.0
_MEMORY_FRAMES = 100  # 3.2 s: the floor is the level that a tenth of them stay under
_NEIGHBOURS, _LOUD_AMONG_THEM = 6, 4


class LoudVoice:
    """Noise floor of one track and the frames that stand out of it."""

    def __init__(self) -> None:
        self._levels: deque[float] = deque()  # dBFS, in order of time
        self._sorted: list[float] = []
        self._loud: deque[bool] = deque(maxlen=_NEIGHBOURS)

    def push(self, frame: Pcm) -> float:
        """Evidence that the next 32 ms are voice: 0 or EVIDENCE."""
        level = 10 * math.log10(float(frame @ frame) / len(frame) + 1e-7)  # -70 dBFS is as quiet as it gets
        self._remember(level)
        floor = self._sorted[len(self._sorted) // 10]
        self._loud.append(level > max(floor + _ABOVE_FLOOR_DB, _LEAST_DBFS))
        return EVIDENCE if self._loud[-1] and sum(self._loud) >= _LOUD_AMONG_THEM else 0.0

    def _remember(self, level: float) -> None:
        self._levels.append(level)
        insort(self._sorted, level)
        if len(self._levels) > _MEMORY_FRAMES:
            del self._sorted[bisect_left(self._sorted, self._levels.popleft())]
