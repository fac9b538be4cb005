"""Configuration: frozen dataclasses beside the code they configure, TOML for the differences.

`load` fills a nested dataclass from a TOML file and from environment variables such as
`CMATH_STREAM__SEGMENTER__MIN_SILENCE_S=0.4`. An unknown key or a value of the wrong type is refused at
start with its name, because a mistyped setting that is silently ignored is the worst kind.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from realtime.errors import SettingsError

T = TypeVar("T")
ENV_PREFIX = "CMATH_STREAM__"


def load(cls: type[T], path: Path | None, environ: Mapping[str, str]) -> T:
    """Build `cls` from its defaults, then the TOML file, then the environment.

    Raises SettingsError naming the key for anything unknown, ill-typed or out of range.
    """
    values = {} if path is None else read_toml(path)
    for name, text in environ.items():
        if name.startswith(ENV_PREFIX):
            _put(values, name.removeprefix(ENV_PREFIX).lower().split("__"), text, name)
    return build(cls, values)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises SettingsError."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} is not valid TOML: {error}") from None


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Turn a mapping into the dataclass `cls`, checking every key and type on the way."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise SettingsError(f"unknown setting {where}{unknown[0]}; known here: {', '.join(sorted(hints))}")
    arguments = {key: _convert(hints[key], value, where + key) for key, value in values.items()}
    try:
        return cls(**arguments)
    except ValueError as error:  # a dataclass checks its own ranges in __post_init__
        raise SettingsError(f"setting {where.rstrip('.') or cls.__name__}: {error}") from None


def to_dict(value: Any) -> Any:
    """The effective settings as plain data (for printing)."""
    return dataclasses.asdict(value)


def _put(values: dict[str, Any], path: list[str], text: str, name: str) -> None:
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"environment variable {name}: {part} is not a section")
        values = inner
    values[path[-1]] = text


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # only `X | None` is used
        if value is None or value == "":
            return None
        return _convert(next(a for a in args if a is not type(None)), value, name)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise SettingsError(f"setting {name} is a section, not a value")
        return build(typing.cast(type[Any], hint), value, name + ".")
    if origin is Mapping:  # a table that whoever takes it checks
        if not isinstance(value, Mapping):
            raise SettingsError(f"setting {name} is a section, not a value")
        return dict(value)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise SettingsError(f"setting {name} must be a list, got {value!r}")
        return tuple(_convert(args[0], item, name) for item in items if item != "")
    if origin is typing.Literal:
        if value not in args:
            raise SettingsError(f"setting {name} must be one of {', '.join(map(str, args))}, got {value!r}")
        return value
    return _scalar(hint, value, name)


def _scalar(hint: Any, value: Any, name: str) -> Any:
    try:
        if hint is bool and isinstance(value, str):
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return float(value)
        if hint is int and isinstance(value, str):
            return int(value)
    except (ValueError, KeyError):
        raise SettingsError(f"setting {name} must be a {hint.__name__}, got {value!r}") from None
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise SettingsError(f"setting {name} must be a {hint.__name__}, got {value!r}")
