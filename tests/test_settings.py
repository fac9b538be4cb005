from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from realtime.errors import SettingsError
from realtime.redis_bus import RedisConfig
from realtime.settings import build, load, to_dict


@dataclass(frozen=True, slots=True)
class Inner:
    size: int = 3
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size must not be negative")


@dataclass(frozen=True, slots=True)
class Outer:
    name: str = "x"
    path: str | None = None
    limit: int | None = 4
    on: bool = False
    mode: Literal["fast", "good"] = "good"
    languages: tuple[str, ...] = ("en",)
    inner: Inner = field(default_factory=Inner)


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, "utf-8")
    return path


def test_defaults_need_no_file() -> None:
    assert load(Outer, None, {}) == Outer()


def test_file_then_environment(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "file"\nlanguages = ["en", "de"]\n[inner]\nsize = 7\nrate = 2\n')
    environ = {"CMATH_STREAM__NAME": "env", "CMATH_STREAM__INNER__RATE": "0.25", "PATH": "/bin"}
    settings = load(Outer, path, environ)
    assert settings == Outer(name="env", languages=("en", "de"), inner=Inner(7, 0.25))
    assert build(Outer, to_dict(settings)) == settings


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("ON", "true", "on", True),
        ("ON", "0", "on", False),
        ("LIMIT", "12", "limit", 12),
        ("LIMIT", "", "limit", None),
        ("LANGUAGES", "en,fr", "languages", ("en", "fr")),
        ("LANGUAGES", "", "languages", ()),
        ("MODE", "fast", "mode", "fast"),
    ],
)
def test_environment_values_take_their_type(name: str, text: str, key: str, value: Any) -> None:
    assert getattr(load(Outer, None, {f"CMATH_STREAM__{name}": text}), key) == value


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"nmae": "x"}, "unknown setting nmae; known here: .*name"),
        ({"inner": {"szie": 1}}, r"unknown setting inner\.szie"),
        ({"inner": 3}, "inner is a section"),
        ({"name": 3}, "name must be a str"),
        ({"on": 1}, "on must be a bool"),
        ({"inner": {"size": 1.5}}, r"inner\.size must be a int"),
        ({"inner": {"size": True}}, r"inner\.size must be a int"),
        ({"inner": {"rate": "quick"}}, r"inner\.rate must be a float"),
        ({"inner": {"size": -1}}, "inner: size must not be negative"),
        ({"mode": "slow"}, "mode must be one of fast, good"),
        ({"languages": 3}, "languages must be a list"),
        ({"languages": [3]}, "languages must be a str"),
        ({"limit": "many"}, "limit must be a int"),
    ],
)
def test_what_is_wrong_is_refused_by_name(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        build(Outer, values)


def test_a_variable_cannot_turn_a_value_into_a_section(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "x"\n')
    with pytest.raises(SettingsError, match="name is not a section"):
        load(Outer, path, {"CMATH_STREAM__NAME__FIRST": "y"})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(Outer, tmp_path / "none.toml", {})
    with pytest.raises(SettingsError, match="not valid TOML"):
        load(Outer, write(tmp_path, "name = "), {})


def test_a_real_configuration_goes_through() -> None:
    settings = load(RedisConfig, None, {"CMATH_STREAM__URL": "redis://h/0", "CMATH_STREAM__SHARDS": "8"})
    assert (settings.url, settings.shards) == ("redis://h/0", 8)
    with pytest.raises(SettingsError, match="shards"):
        load(RedisConfig, None, {"CMATH_STREAM__SHARDS": "0"})
