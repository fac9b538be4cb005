"""One track of several people and nobody who says whose turn it is: turns by the sound of the voices.

What is found is a guess. It says so in the names (`voice-1`), in every event, and in a sentence at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmath_stream.events import Event
from cmath_stream.inputs import Source
from cmath_stream.replay import Replay
from realtime.errors import MediaError
from realtime.messages import SAMPLE_RATE_HZ, Segment
from realtime.rttm import Turn
from workers.speakers import Heard, VoiceTurn, hear, tell_apart

DOUBTED = 0.7  # confidence below which a turn is counted as doubtful


@dataclass(frozen=True, slots=True)
class Attributed:
    """Whose turns a track has, as far as the voices tell."""

    found: Sequence[VoiceTurn]

    @property
    def turns(self) -> list[Turn]:
        """In order of time."""
        return [Turn(_name(each), each.start_s, each.end_s) for each in self.found]

    @property
    def note(self) -> str:
        """For a person."""
        voices = len({each.speaker for each in self.found})
        mean = sum(each.confidence for each in self.found) / len(self.found)
        doubtful = sum(each.confidence < DOUBTED for each in self.found)
        return (
            f"{voices} voice{'s' * (voices > 1)} told apart by sound alone, which is a guess: "
            f"mean confidence {mean:.2f}, {doubtful} of {len(self.found)} turns doubtful"
        )

    def marked(self, events: Iterator[Event], people: Sequence[Source]) -> Iterator[Event]:
        """The same events; those of emotions say by what, and how surely, their participant was found."""
        sure = {(each.start_s, each.end_s): each.confidence for each in self.found}
        turns = {person.participant_id: person.turns or () for person in people}
        for event in events:
            if event["type"] == "emotion.utterance":
                start_s, end_s = event["start_ms"] / 1000, event["end_ms"] / 1000
                shares = [
                    (max(0.0, min(end_s, turn.end_s) - max(start_s, turn.start_s)), turn)
                    for turn in turns[event["participant_id"]]
                ]
                total = sum(share for share, _ in shares)
                mean = sum(share * sure[turn.start_s, turn.end_s] for share, turn in shares) / total
                event = event | {"attribution": {"by": "voice", "confidence": round(mean, 3)}}
            yield event


def attribute(
    machine: Replay, track: Path, speakers: int | None, on_progress: Callable[[float], None]
) -> Attributed:
    """Hear the track once as a whole, then tell the voices of its utterances apart; None = however many.

    Raises MediaError, also where there is no speech to tell apart.
    """
    heard: dict[str, Heard] = {}  # an utterance that was taken up again counts as it ended
    for message in machine.messages("", [Source("track", track)], on_progress, ""):
        if isinstance(message, Segment):
            skip = (message.start_ms - message.pcm_start_ms) * SAMPLE_RATE_HZ // 1000
            heard[message.utterance_id] = hear(message.pcm[skip:], message.start_ms / 1000)
    found = tell_apart(list(heard.values()), speakers)
    if not found:
        raise MediaError(f"{track}: no speech in it that voices could be told apart by")
    return Attributed(found)


def _name(turn: VoiceTurn) -> str:
    return f"voice-{turn.speaker + 1}"
