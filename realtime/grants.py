"""What a token allows: a room, actions in it, and, where the token says so, a purpose and a participant.

Knows no token format and no HTTP. An allowance that is lacking is `insufficient_scope` (RFC 6750 §3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from realtime.errors import AccessDenied

Action = Literal["publish", "subscribe"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
ANY_ROOM: Final = "*"

_DONE = {"publish": "publish into", "subscribe": "subscribe to"}


@dataclass(frozen=True, slots=True)
class Grant:
    """An allowance. Every check raises AccessDenied 403."""

    room: str
    actions: frozenset[str]
    purpose: str | None = None  # None: any
    participant: str | None = None  # None: any

    def require(self, room: str | None, *actions: Action) -> None:
        """One of the actions, in this room; None is a room that nobody knows any more."""
        if self.room not in (ANY_ROOM, room):
            raise _lacking("this token is for another room")
        if not self.actions & set(actions):
            raise _lacking(f"this token does not allow to {' or '.join(_DONE[a] for a in actions)} a room")

    def require_purpose(self, purpose: str | None) -> None:
        """A conversation that is held for this purpose."""
        if self.purpose not in (None, purpose):
            raise _lacking("this token is for another purpose than this conversation")

    def declared(self, purpose: str | None) -> str | None:
        """The purpose somebody joins for: what the request says, else what the token says."""
        if purpose is None:
            return self.purpose
        if self.purpose not in (None, purpose):
            raise _lacking("this token is for another purpose than the one that was declared")
        return purpose

    def named(self, participant: str | None) -> str | None:
        """The participant that somebody is: what the token says, else what the request says."""
        if None not in (self.participant, participant) and self.participant != participant:
            raise _lacking("this token is for another participant")
        return self.participant or participant


EVERYTHING: Final = Grant(ANY_ROOM, frozenset(ACTIONS))


def _lacking(detail: str) -> AccessDenied:
    return AccessDenied(403, detail, "insufficient_scope")
