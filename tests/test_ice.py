"""Consent to send (RFC 7675): a busy other side is waited for, a dead one is not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aioice.stun import TransactionTimeout

from realtime import ice
from realtime.ice import IceWatch, new_connection


class Asked:
    """The other side's answers to consent checks, true ones and none."""

    remote_addr = ("127.0.0.1", 9)

    def __init__(self, *answers: bool) -> None:
        self.protocol = self
        self.answers = list(answers)
        self.count = 0
        self.retransmissions = 0

    async def request(self, *_: Any, retransmissions: int, **__: Any) -> None:
        self.count += 1
        self.retransmissions = retransmissions
        if self.answers and not self.answers.pop(0):
            raise TransactionTimeout
        await asyncio.sleep(0)


async def asked(monkeypatch: pytest.MonkeyPatch, pair: Asked, expires_s: float) -> bool:
    """Whether the connection was closed within half a second of checks every 10 ms."""
    monkeypatch.setattr(ice, "CONSENT_EVERY_S", 0.01)
    monkeypatch.setattr(ice, "CONSENT_EXPIRES_S", expires_s)
    pc = new_connection(())
    pc.addTransceiver("audio")
    IceWatch(pc, "only")
    connection: Any = ice._connection_of(pc)
    connection.remote_password = "secret of nobody"
    connection._nominated = {1: pair}
    connection.build_request = lambda pair, nominate: SimpleNamespace()
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    connection.close = close
    task = asyncio.create_task(connection.query_consent())
    try:
        await asyncio.wait_for(closed.wait(), 0.5)
    except TimeoutError:
        return False
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await pc.close()
    return True


async def test_answers_that_fail_now_and_then_end_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Asked(*[False] * 8)
    assert not await asked(monkeypatch, pair, expires_s=5.0)
    assert pair.count > 10 and pair.retransmissions == 3


async def test_nobody_who_answers_for_so_long_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await asked(monkeypatch, Asked(*[False] * 1000), expires_s=0.1)
