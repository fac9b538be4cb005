"""Which sessions are held by an ingest, told to Redis by the ingest itself; and who asks that one be closed.

Every second an ingest renews a short-lived key for each session that it holds. In the same look it takes
the requests to close that operators have left beside it. Both keys lie in the session's slot.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from redis import exceptions

from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client

if TYPE_CHECKING:
    from realtime.session import LiveSession

log = logging.getLogger(__name__)

HELD_S = 5  # so long after the death of its ingest a session still counts as held
BEAT_S = 1.0
REASON = "operator"  # why such a session closed


@dataclass(frozen=True, slots=True)
class Held:
    """What an ingest tells of a session that it holds."""

    room: str
    participants: int  # seated now
    utterances: int  # started so far

    def to_json(self) -> bytes:
        """As it is kept."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Held:
        """As it was told."""
        return cls(**json.loads(text))


class Register:
    """The ingest's side: `run` renews and looks, until cancelled."""

    def __init__(
        self, client: Client, config: RedisConfig, sessions: Callable[[], Iterable[LiveSession]]
    ) -> None:
        self._client = client
        self._keys = config.keys
        self._sessions = sessions
        self._told: set[str] = set()  # ids of the sessions that Redis takes for held

    async def run(self) -> None:
        """Look every second. During an outage nothing can be asked, and the calls go on."""
        while True:
            try:
                await self.look()
            except exceptions.RedisError as error:
                log.debug("register: %s", error)
            await asyncio.sleep(BEAT_S)

    async def look(self) -> None:
        """Renew what is held, begin to close what is asked for. Raises RedisError."""
        sessions = {session.id: session for session in self._sessions()}
        pipe = self._client.pipeline(transaction=False)
        for session_id, session in sessions.items():
            held = Held(session.room, session.size, session.utterances)
            pipe.set(self._keys.held(session_id), held.to_json(), ex=HELD_S)
            pipe.getdel(self._keys.close(session_id))
        gone = self._told - sessions.keys()
        for session_id in gone:
            pipe.unlink(self._keys.held(session_id))
        if not len(pipe):
            return
        self._told |= sessions.keys()  # even if the answer is lost
        results = await pipe.execute()
        self._told -= gone
        for session, asked in zip(sessions.values(), results[1::2], strict=False):
            if asked:
                log.info("session %s: an operator asks to close it", session.id[:8])
                session.end(REASON)
