"""Every Redis key name, in one place.

The braces are Redis Cluster hash tags: all keys of one session live in one slot, so that the publishing
script may touch them together. Work streams are sharded by session: shard = crc32(session) mod n.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Names under one prefix."""

    prefix: str = "emo:"
    shards: int = 4

    def shard_of(self, session_id: str) -> int:
        """Shard that owns a session: stable over processes and languages (CRC-32)."""
        return zlib.crc32(session_id.encode()) % self.shards

    def segments(self, shard: int) -> str:
        """Job stream of the extractors: stream of Segment and Transcript."""
        return f"{self.prefix}work:{{segments:{shard}}}"

    def inbox(self, shard: int) -> str:
        """Inbox of the fusion: notices of the ingest and features of the workers."""
        return f"{self.prefix}work:{{features:{shard}}}"

    def lease(self, shard: int) -> str:
        """Who owns a shard of the inbox, always with a TTL."""
        return f"{self.prefix}lease:{{features:{shard}}}"

    def fence(self, shard: int) -> str:
        """The number of the shard's last owner."""
        return f"{self.prefix}fence:{{features:{shard}}}"

    @property
    def owners(self) -> str:
        """Sorted set of those who own shards, by the time they last said so."""
        return f"{self.prefix}owners"

    def dead(self, stream: str) -> str:
        """Dead letters of a job stream."""
        return f"{stream}:dlq"

    def blob(self, session_id: str, utterance_id: str, attempt: int, kind: str) -> str:
        """Media bytes of one segment of an utterance (`pcm` or `pictures`), always with a TTL."""
        return f"{self.prefix}blob:{{{session_id}}}:{utterance_id}:{attempt}:{kind}"

    def media(self, session_id: str, utterance_id: str, attempt: int) -> list[str]:
        """All blobs that a segment may have."""
        return [self.blob(session_id, utterance_id, attempt, kind) for kind in ("pcm", "pictures")]

    def events(self, session_id: str) -> str:
        """Public ordered event stream of one session."""
        return f"{self.prefix}{{{session_id}}}:events"

    def state(self, session_id: str) -> str:
        """Hash: status, seq, room, counters of one session."""
        return f"{self.prefix}{{{session_id}}}:state"

    def window(self, session_id: str) -> str:
        """Stream of a session's last utterances, from which another fusion process goes on."""
        return f"{self.prefix}{{{session_id}}}:window"

    def done(self, session_id: str) -> str:
        """Hash of published event ids: what makes a repeat harmless."""
        return f"{self.prefix}{{{session_id}}}:done"

    def held(self, session_id: str) -> str:
        """JSON of what the ingest that holds a session tells of it; expires soon after its ingest died."""
        return f"{self.prefix}{{{session_id}}}:held"

    def close(self, session_id: str) -> str:
        """An operator's request that the session be closed, for the ingest that holds it."""
        return f"{self.prefix}{{{session_id}}}:close"

    @property
    def feed(self) -> str:
        """All sessions' events, for firehose subscribers (at least once)."""
        return f"{self.prefix}feed"

    # ---- finding them again

    @property
    def any_session(self) -> str:
        """Pattern (SCAN MATCH) of the keys of all sessions, media apart."""
        return f"{_literally(self.prefix)}{{*}}:*"

    def session_of(self, key: str) -> str:
        """Session of a key that `any_session` matches."""
        return key.removeprefix(f"{self.prefix}{{").partition("}")[0]

    def all_of(self, session_id: str) -> str:
        """Pattern (SCAN MATCH) of whatever lies in the slot of a session, media included."""
        return f"{_literally(self.prefix)}*{{{_literally(session_id)}}}*"


def _literally(text: str) -> str:
    return re.sub(r"([\\*?\[\]^-])", r"\\\1", text)
