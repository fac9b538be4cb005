"""The segment of one utterance that was sent before its end was decided: kept, or taken back. Sans-I/O.

Segments of an utterance are numbered: answers carry the number of the segment that they are about, and the
announcement says which one holds. So nothing has to be recalled from the workers: a void answer is known by
its number, however late it comes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from realtime.messages import Message, Segment, SegmentWithdrawn, Transcript


class EarlyStart:
    """What was sent of one utterance ahead of its end."""

    def __init__(self) -> None:
        self._sent: Segment | None = None
        self._attempt = 0

    @property
    def attempt(self) -> int:
        """Number of the segment that holds, or of the next one to be sent."""
        return self._attempt

    def start(self, segment: Segment) -> Segment:
        """The utterance seems to end: the segment as it goes out now."""
        self._sent = replace(segment, attempt=self._attempt, early=True)
        return self._sent

    def withdraw(self, reason: str) -> list[Message]:
        """Take back what was sent, if anything was."""
        sent, self._sent = self._sent, None
        if sent is None:
            return []
        self._attempt += 1
        ids = sent.session_id, sent.participant_id, sent.utterance_id
        return [SegmentWithdrawn(*ids, sent.attempt, reason)]

    def reopen(self) -> None:
        """The utterance goes on after its end: its next segment is another one."""
        self._attempt += 1

    def settle(self, segment: Segment) -> list[Message]:
        """The end is decided and this is the utterance's segment: what still has to go out."""
        sent = self._sent
        same_words = sent is not None and (sent.text, sent.language) == (segment.text, segment.language)
        if sent is None or not _same_media(sent, segment) or not (same_words or sent.text is None):
            return [*self.withdraw("changed"), replace(segment, attempt=self._attempt)]
        self._sent = None  # media are held no longer than they are needed
        if same_words:
            return []
        # Nobody has worked on the words yet: they come as those of any late caption.
        ids = segment.session_id, segment.participant_id, segment.utterance_id
        words = segment.text, segment.language
        return [Transcript(*ids, *words, segment.deadline_unix_ms, self._attempt)]


def _same_media(one: Segment, other: Segment) -> bool:
    # A picture of the last moment may arrive between the two, and counts as it did without an early start.
    times = [(s.start_ms, s.end_ms, s.pcm_start_ms) for s in (one, other)]
    return (
        times[0] == times[1] and one.pictures == other.pictures and bool(np.array_equal(one.pcm, other.pcm))
    )
