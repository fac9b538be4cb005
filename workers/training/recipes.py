"""Recipes of encoders: TOML files whose `kind` says which encoder they train."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from realtime.errors import SettingsError
from realtime.settings import build, read_toml

T = TypeVar("T")


def read_recipe(cls: type[T], path: Path, kind: str) -> T:
    """A recipe of this kind; the key may lack. Raises SettingsError for another kind or an unknown key."""
    values = read_toml(path)
    told = values.pop("kind", kind)
    if told != kind:
        raise SettingsError(f"{path}: a recipe of kind {told!r}, not {kind!r}")
    return build(cls, values)
