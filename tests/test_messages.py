from __future__ import annotations

import dataclasses
import typing
from typing import Any

import numpy as np
import pytest

import realtime
from realtime import messages
from realtime.messages import AudioChunk
from tests.conftest import make_segment

ALL = [*typing.get_args(messages.Message), messages.AudioChunk, messages.VideoFrame, messages.Picture]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_messages_are_frozen_and_slotted(cls: type[Any]) -> None:
    assert cls.__dataclass_params__.frozen
    assert "__slots__" in vars(cls)


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_segment().text = "changed"  # type: ignore[misc]


def test_every_message_names_its_session() -> None:
    for cls in typing.get_args(messages.Message):
        assert "session_id" in typing.get_type_hints(cls)


def test_times_say_their_unit() -> None:
    for cls in ALL:
        for name, hint in typing.get_type_hints(cls).items():
            if name.startswith(("start", "end", "at", "deadline", "decided", "took", "lost")) and hint is int:
                assert name.endswith("_ms") or name in ("started", "attempt")


def test_a_chunk_knows_its_end() -> None:
    assert AudioChunk(np.zeros(8000, np.float32), 1.25).end_s == 1.75


def test_the_package_is_ours() -> None:
    """PyPI has another `realtime`: were it installed over ours, nothing else here would say why all fails."""
    assert realtime.__file__ is not None
    assert messages.__file__ is not None
    assert messages.__file__.startswith(realtime.__file__.removesuffix("__init__.py"))
