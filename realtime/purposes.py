"""What a conversation may be for, and whether whoever joins has agreed to it.

The EU AI Act, Regulation (EU) 2024/1689, forbids AI that infers emotions of people at work and in education
(Art. 5(1)(f)) and asks that people who are exposed to it elsewhere are told (Art. 50(3)). Purposes that name
such a place are refused unless the operator says otherwise. None of this is legal advice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from realtime.errors import SignalingError

RESTRICTED: Final = ("work", "workplace", "employment", "recruitment", "hiring", "education", "school")
RULE: Final = "the EU AI Act, Art. 5(1)(f), forbids emotion inference at work and in education"


@dataclass(frozen=True, slots=True)
class PurposeConfig:
    """The operator's choice."""

    allowed: tuple[str, ...] = ()  # then one of these has to be declared; empty = any, or none
    allow_restricted: tuple[str, ...] = ()  # words of RESTRICTED that are let in all the same
    require_consent: bool = False  # whoever joins has to say which notice was agreed to

    def __post_init__(self) -> None:
        for word in self.allow_restricted:
            if word not in RESTRICTED:
                raise ValueError(f"allow_restricted takes {', '.join(RESTRICTED)}; got {word!r}")
        for purpose in self.allowed:
            if self._is_restricted(purpose):
                raise ValueError(f"allowed has {purpose!r}, which allow_restricted has to name too: {RULE}")

    def require(self, purpose: str | None, *, of_room: str | None, consent: str | None) -> None:
        """Whether somebody may join for this purpose. Raises SignalingError 403.

        `of_room` is the purpose of the conversation under way. Not 409: that one is told to try again, and
        this does not change while the conversation lasts.
        """
        if purpose is not None and self._is_restricted(purpose):
            raise SignalingError(403, f"this purpose is refused: {RULE} (this is no legal advice)")
        if None not in (purpose, of_room) and purpose != of_room:
            raise SignalingError(403, "the conversation in this room has another purpose")
        if self.allowed and (purpose or of_room) not in self.allowed:
            raise SignalingError(403, f"the purpose must be one of: {', '.join(self.allowed)}")
        if self.require_consent and consent is None:
            raise SignalingError(403, "consent is needed: join with consent=VERSION of the notice agreed to")

    def _is_restricted(self, purpose: str) -> bool:
        words = set(re.split(r"[^a-z]+", purpose.casefold()))
        return bool(words & set(RESTRICTED) - set(self.allow_restricted))
