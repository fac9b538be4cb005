"""The published schema as one function an event: fast enough for every event of a long call.

Knows the keywords that `emotion-event-1.schema.json` uses, and refuses to be built from a schema that uses
another. `format` is left to the reader of the schema, as JSON Schema allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from cmath_stream.events import schema

Check = Callable[[Any, str], str | None]  # (value, where it stands) -> what is wrong with it

_TELLING = frozenset({"title", "description", "format", "$schema", "$id", "$defs", "then", "else"})
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        not isinstance(value, bool)
        and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
}


def problem(event: object) -> str | None:
    """What is wrong with a decoded JSON value as a public event, in a few words; None: nothing."""
    if not isinstance(event, dict):
        return "not a JSON object"
    kind = event.get("type")
    check = _checks().get(kind) if isinstance(kind, str) else None
    if check is None:
        return f"no emotion-event/1 event: its type is {kind!r:.60}"
    return check(event, "")


@cache
def _checks() -> Mapping[str, Check]:
    """By type of event. Of `oneOf` only the one that the type names is asked: it can say what is wrong."""
    definitions = schema()["$defs"]
    names = [branch["$ref"].removeprefix("#/$defs/") for branch in schema()["oneOf"]]
    return {name: _check(definitions[name], definitions) for name in names}


def _check(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Check:
    checks = [
        _KEYWORDS[keyword](argument, node, definitions)
        for keyword, argument in node.items()
        if keyword not in _TELLING
    ]

    def all_of(value: Any, where: str) -> str | None:
        for check in checks:
            wrong = check(value, where)
            if wrong is not None:
                return wrong
        return None

    return all_of


def _reference(name: str, _: Any, definitions: Mapping[str, Any]) -> Check:
    return _check(definitions[name.removeprefix("#/$defs/")], definitions)


def _type(names: str | list[str], *_: Any) -> Check:
    wanted = [names] if isinstance(names, str) else names
    tests = [_TYPES[name] for name in wanted]
    return _plain(lambda value: any(test(value) for test in tests), f"is no {' or '.join(wanted)}")


def _plain(is_good: Callable[[Any], bool], complaint: str) -> Check:
    return lambda value, where: None if is_good(value) else f"{where or 'it'} {complaint}"


def _properties(nodes: Mapping[str, Any], _: Any, definitions: Mapping[str, Any]) -> Check:
    checks = {name: _check(node, definitions) for name, node in nodes.items()}

    def check(value: Any, where: str) -> str | None:
        if isinstance(value, dict):
            for name in checks.keys() & value.keys():
                wrong = checks[name](value[name], f"{where}.{name}" if where else name)
                if wrong is not None:
                    return wrong
        return None

    return check


def _required(names: list[str], *_: Any) -> Check:
    def check(value: Any, where: str) -> str | None:
        lacking = next((name for name in names if isinstance(value, dict) and name not in value), None)
        return None if lacking is None else f"{where or 'it'} has no {lacking}"

    return check


def _items(node: Mapping[str, Any], _: Any, definitions: Mapping[str, Any]) -> Check:
    one = _check(node, definitions)

    def check(value: Any, where: str) -> str | None:
        if isinstance(value, list):
            for number, item in enumerate(value):
                wrong = one(item, f"{where}[{number}]")
                if wrong is not None:
                    return wrong
        return None

    return check


def _if(condition: Mapping[str, Any], node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Check:
    holds = _check(condition, definitions)
    then, otherwise = (_check(node.get(key, {}), definitions) for key in ("then", "else"))
    return lambda value, where: (otherwise if holds(value, where) else then)(value, where)


def _number(value: Any) -> bool:
    return _TYPES["number"](value)


_KEYWORDS: dict[str, Callable[[Any, Mapping[str, Any], Mapping[str, Any]], Check]] = {
    "$ref": _reference,
    "type": _type,
    "properties": _properties,
    "required": _required,
    "items": _items,
    "if": _if,
    "const": lambda wanted, *_: _plain(
        lambda value: type(value) is type(wanted) and bool(value == wanted), f"is not {wanted!r}"
    ),
    "enum": lambda allowed, *_: _plain(lambda value: value in allowed, f"is none of {', '.join(allowed)}"),
    "minimum": lambda least, *_: _plain(lambda v: not _number(v) or v >= least, f"is below {least}"),
    "maximum": lambda most, *_: _plain(lambda v: not _number(v) or v <= most, f"is above {most}"),
    "minLength": lambda least, *_: _plain(lambda v: not isinstance(v, str) or len(v) >= least, "is empty"),
    "minItems": lambda least, *_: _plain(
        lambda v: not isinstance(v, list) or len(v) >= least, f"has fewer than {least} entries"
    ),
}
