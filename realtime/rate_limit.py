"""How many requests a client may make: one token bucket an address. Reads no clock.

A bucket that is full again says nothing and is forgotten. When as many addresses as are remembered are
being held back, everyone else shares one bucket: memory is bounded, and changing the address gains nothing.
"""

from __future__ import annotations

_MAX_CLIENTS = 1024
_OTHERS = ""


class RateLimit:
    """`per_s` requests a second of each client, after a first `burst`."""

    def __init__(self, per_s: float, burst: int, max_clients: int = _MAX_CLIENTS) -> None:
        self._per_s = per_s
        self._burst = burst
        self._max_clients = max_clients
        self._full_at_s: dict[str, float] = {}  # when each client's bucket will be full again

    def wait_s(self, client: str, now_s: float) -> float:
        """Take one request of `client`: 0.0 = go on, else refused and to be tried again after so long."""
        if client not in self._full_at_s and len(self._full_at_s) >= self._max_clients:
            self._forget_the_full(now_s)
            if len(self._full_at_s) >= self._max_clients:
                client = _OTHERS
        full_at_s = max(self._full_at_s.get(client, now_s), now_s) + 1 / self._per_s
        over_s = full_at_s - now_s - self._burst / self._per_s
        if over_s > 1e-9:  # sums of times are not exact
            return over_s
        self._full_at_s[client] = full_at_s
        return 0.0

    def __len__(self) -> int:
        """Clients remembered."""
        return len(self._full_at_s)

    def _forget_the_full(self, now_s: float) -> None:
        self._full_at_s = {who: at_s for who, at_s in self._full_at_s.items() if at_s > now_s}
