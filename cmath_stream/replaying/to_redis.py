"""A replay told in Redis as a live session is: the session's stream and the feed, with their TTLs, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cmath_stream.events import Event, to_json
from realtime.redis_bus import RedisConfig, check, connect
from realtime.redis_events import EventLog


class Publisher:
    """Publishes whole sessions, one after the other. Ids are deterministic, so that what was told before, in
    part or to its end, is not told twice."""

    def __init__(self, log: EventLog, runner: asyncio.Runner) -> None:
        self._log = log
        self._runner = runner
        self._known = False  # the session at hand was published to its end before
        self.sessions: list[str] = []
        self.known = 0  # of them

    def passing(self, events: Iterable[Event]) -> Iterator[Event]:
        """The same events, each published before it goes on. Raises as `publish`."""
        for event in events:
            self.publish(event)
            yield event

    def publish(self, event: Event) -> None:
        """The next event. Raises BusError; an outage is waited out."""
        session_id = event["session_id"]
        if event["type"] == "session.started":
            self.sessions.append(session_id)
            self._known = self._runner.run(self._log.claim(session_id, fence=0)) is None
            self.known += self._known
        if self._known:
            return
        body = to_json({key: value for key, value in event.items() if key != "seq"})
        self._runner.run(self._log.publish(session_id, event["event_id"], body))
        if event["type"] == "session.closed":
            self._runner.run(self._log.close(session_id))


@contextmanager
def publisher(config: RedisConfig) -> Iterator[Publisher]:
    """Raises BusError where Redis does not answer."""
    with asyncio.Runner() as runner:
        client = connect(config)
        try:
            runner.run(check(client))
            yield Publisher(EventLog(client, config), runner)
        finally:
            runner.run(client.aclose())
