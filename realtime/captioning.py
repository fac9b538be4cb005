"""Which words belong to which utterance of one participant. Sans-I/O.

A caption goes to the utterance it overlaps most. It usually arrives before its utterance is decided to have
ended; if it comes later it makes a correction, and if none comes within the grace time the utterance is
told that there is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from realtime.messages import Caption

Words = tuple[str | None, str | None]  # text, language; None = not known

_SLACK_S = 0.25  # captions are timed by people or recognisers: a small miss still belongs
_KEEP = 64  # utterances and homeless captions remembered: about five minutes of talk


@dataclass(slots=True)
class _Utterance:
    id: str
    start_s: float
    end_s: float = float("inf")  # still open
    attempt: int = 0  # of its segment
    captions: list[Caption] = field(default_factory=list)
    waits_until_s: float | None = None

    def overlap_s(self, caption: Caption) -> float:
        return min(self.end_s, caption.end_s) - max(self.start_s, caption.start_s)


class CaptionTrack:
    """Captions and utterances of one participant."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._utterances: deque[_Utterance] = deque(maxlen=_KEEP)
        self._homeless: deque[Caption] = deque(maxlen=_KEEP)

    def begin(self, utterance_id: str, start_s: float) -> None:
        """An utterance opened."""
        self._utterances.append(_Utterance(utterance_id, start_s))

    def reopen(self, utterance_id: str) -> None:
        """An utterance that had ended goes on; the words it has stay its own."""
        this = self._of(utterance_id)
        this.end_s, this.waits_until_s = float("inf"), None

    def add(self, caption: Caption, open_id: str) -> str | None:
        """A caption arrived. Returns the ended utterance whose words it changes, if it does."""
        best = _home(caption, self._utterances)
        if best is None or best.id == open_id:
            self._homeless.append(caption)  # its utterance is open, or still to come
            return None
        best.captions.append(caption)
        best.waits_until_s = None
        return best.id

    def so_far(self, utterance_id: str, end_s: float) -> Words:
        """The words that an open utterance would have if it ended at `end_s`; nothing changes by asking."""
        this = self._of(utterance_id)
        ended = replace(this, end_s=end_s)
        known = [ended if utterance is this else utterance for utterance in self._utterances]
        return _joined(caption for caption in self._homeless if _home(caption, known) is ended)

    def end(self, utterance_id: str, end_s: float, now_s: float) -> tuple[list[str], Words]:
        """An utterance ended: the words that had arrived for it, and the earlier utterances whose words
        change, because a caption that seemed to belong to this one belongs to them."""
        this = self._of(utterance_id)
        this.end_s = end_s
        changed: list[str] = []
        for caption in list(self._homeless):
            best = _home(caption, self._utterances)
            if best is not None:
                self._homeless.remove(caption)
                best.captions.append(caption)
                best.waits_until_s = None
                if best is not this and best.id not in changed:
                    changed.append(best.id)
        if not this.captions:
            this.waits_until_s = now_s + self._grace_s
        return changed, self.text_of(utterance_id)

    def expire(self, now_s: float) -> list[str]:
        """Utterances whose captions did not come in time."""
        late = [u for u in self._utterances if u.waits_until_s is not None and u.waits_until_s <= now_s]
        for utterance in late:
            utterance.waits_until_s = None
        return [utterance.id for utterance in late]

    def text_of(self, utterance_id: str) -> Words:
        """(text, language) of an utterance so far; text None without captions."""
        return _joined(self._of(utterance_id).captions)

    def end_of(self, utterance_id: str) -> float:
        """End of an utterance, session seconds."""
        return self._of(utterance_id).end_s

    def settle(self, utterance_id: str, attempt: int) -> None:
        """An ended utterance's segment is this one."""
        self._of(utterance_id).attempt = attempt

    def attempt_of(self, utterance_id: str) -> int:
        """Number of an ended utterance's segment."""
        return self._of(utterance_id).attempt

    def _of(self, utterance_id: str) -> _Utterance:
        return next(u for u in self._utterances if u.id == utterance_id)


def _home(caption: Caption, utterances: Iterable[_Utterance]) -> _Utterance | None:
    """The utterance that a caption belongs to; None where it belongs to none of them."""
    best = max(utterances, key=lambda u: u.overlap_s(caption), default=None)
    return best if best is not None and best.overlap_s(caption) > -_SLACK_S else None


def _joined(captions: Iterable[Caption]) -> Words:
    ordered = sorted(captions, key=lambda c: (c.start_s, c.end_s))
    languages = [caption.language for caption in ordered if caption.language]
    text = " ".join(caption.text for caption in ordered) if ordered else None
    return text, languages[0] if languages else None
