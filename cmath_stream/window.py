"""The last utterances of one session, in conversation order: what the model sees. Sans-I/O.

A row is an utterance's features; speakers are numbered by their first appearance in the session, a number
that never changes while the session lives (R7).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from realtime.messages import Vector


@dataclass(frozen=True, slots=True)
class Row:
    """One utterance as the model sees it."""

    utterance_id: str
    speaker: int  # order of first appearance in the session, 0..
    vectors: Mapping[str, Vector]  # modality → [D_m]; an absent modality has no entry


class Window:
    """Rolling rows of one session."""

    def __init__(self, rows: int) -> None:
        """`rows`: utterances kept, the halo of the convolutions included."""
        self._rows: deque[Row] = deque(maxlen=rows)
        self._speakers: dict[str, int] = {}

    @property
    def speakers(self) -> dict[str, int]:
        """Participant → number, of all that have spoken."""
        return dict(self._speakers)

    def know(self, speakers: Mapping[str, int]) -> None:
        """Number these participants as another process did."""
        self._speakers |= speakers

    def put(
        self, utterance_id: str, participant_id: str, vectors: Mapping[str, Vector], revision: int = 0
    ) -> tuple[Row, ...]:
        """Add an utterance (revision 0), or replace its earlier revision.

        Returns the rows up to and including it, oldest first: the model's view of this utterance. A
        revision of an utterance that has already left the window stands alone.
        """
        speaker = self._speakers.setdefault(participant_id, len(self._speakers))
        row = Row(utterance_id, speaker, vectors)
        for place, old in enumerate(self._rows):
            if old.utterance_id == utterance_id:
                self._rows[place] = row
                return tuple(self._rows)[: place + 1]
        if revision:
            return (row,)
        self._rows.append(row)
        return tuple(self._rows)
