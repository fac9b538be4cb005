"""Dead letters of the job streams: look at them, put them back, drop them. For a person, not for the line.

A letter is shown by its identity and its error alone: its fields may hold what somebody said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from realtime import wire
from realtime.errors import OperatorError
from realtime.redis_bus import RedisConfig
from realtime.redis_cluster import Client
from realtime.redis_pages import entries

# Both streams have one hash tag, so that this is one step on a cluster too: a crash leaves the letter where
# it was or the job where it belongs, and whoever asks again finds nothing to do.
_RETRY = """
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then return 0 end
local job = {}
for i = 1, #letter[2], 2 do
  local name = letter[2][i]
  if name ~= 'error' and name ~= 'deliveries' and name ~= 'failed_at' then
    job[#job + 1] = name
    job[#job + 1] = letter[2][i + 1]
  end
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', unpack(job))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """What may be shown of one dead letter."""

    stream: str  # the job stream that it comes from
    entry_id: str  # among the dead letters
    type: str  # of the message; "" here and below where the letter does not say
    session_id: str
    utterance_id: str
    error: str
    deliveries: int
    failed_at: int  # ms since 1970; 0 = not known


class DeadLetters:
    """Those of all job streams of an installation. Every method raises RedisError during an outage."""

    def __init__(self, client: Client, config: RedisConfig) -> None:
        self._client = client
        self._config = config
        self._keys = config.keys
        self._retry = client.register_script(_RETRY)

    def streams(self, name: str | None = None) -> list[str]:
        """Job streams that `name` means: a key, `segments:0`, a kind (`segments`, `features`), None = all.

        Raises OperatorError where it means none.
        """
        shards = range(self._config.shards)
        every = [*map(self._keys.segments, shards), *map(self._keys.inbox, shards)]
        chosen = [s for s in every if name in (None, s, short(s), short(s).partition(":")[0])]
        if not chosen:
            raise OperatorError(
                f"there is no job stream {name!r}: say segments or features, of one shard segments:0"
            )
        return chosen

    async def letters(self, stream: str | None = None) -> list[Letter]:
        """All there are now, those of one stream together, the oldest first. Raises OperatorError."""
        return [letter for name in self.streams(stream) async for letter in self._of(name)]

    async def chosen(self, ids: list[str], stream: str | None = None) -> list[Letter]:
        """The letters of these ids. Raises OperatorError for one that is unknown or in two streams."""
        by_id: dict[str, list[Letter]] = {}
        for letter in await self.letters(stream):
            by_id.setdefault(letter.entry_id, []).append(letter)
        for entry_id in ids:
            found = by_id.get(entry_id, [])
            if not found:
                raise OperatorError(
                    f"there is no dead letter {entry_id}, nothing was done: see `cmath-stream dlq list`"
                )
            if len(found) > 1:
                where = " or ".join(short(letter.stream) for letter in found)
                raise OperatorError(
                    f"{entry_id} is several dead letters, nothing was done: add --stream {where}"
                )
        return [by_id[entry_id][0] for entry_id in dict.fromkeys(ids)]

    async def retry(self, letter: Letter) -> bool:
        """Put the original entry back on its stream, as its last; False when the letter was gone."""
        keys = [self._keys.dead(letter.stream), letter.stream]
        return bool(await self._retry(keys=keys, args=[letter.entry_id, self._config.stream_maxlen]))

    async def drop(self, letter: Letter) -> bool:
        """Delete it; False when it was gone."""
        return bool(await self._client.xdel(self._keys.dead(letter.stream), letter.entry_id))

    async def _of(self, stream: str) -> AsyncIterator[Letter]:
        async for entry_id, fields in entries(self._client, self._keys.dead(stream)):
            yield Letter(
                stream,
                entry_id.decode(),
                *wire.identity(fields),
                fields.get(b"error", b"").decode(errors="replace"),
                _number(fields, b"deliveries"),
                _number(fields, b"failed_at"),
            )


def short(stream: str) -> str:
    """A job stream as people call it: `segments:0`."""
    return stream.partition("{")[2].rstrip("}")


def _number(fields: dict[bytes, bytes], name: bytes) -> int:
    value = fields.get(name, b"")
    return int(value) if value.isdigit() and len(value) <= 13 else 0  # more is no date of ours
