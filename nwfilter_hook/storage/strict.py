"""
Parsers of JSON values that take nothing else: each returns the value or raises ValueError or TypeError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..base.addresses import is_tap_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_./-]{1,255}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def label(value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def text(value: Any) -> str:
    """Text without control characters: it may come to stand in a script."""
    if not label(value).isprintable():
        raise ValueError(f"{value!r} holds what can't be printed")
    return label(value)


def name(value: Any) -> str:
    """The name of a thing in the kernel, which stands in a script unquoted."""
    if not _NAME.fullmatch(text(value)):
        raise ValueError(f"name {value!r}")
    return text(value)


def uuid(value: Any) -> str:
    """A UUID in lower case."""
    if not UUID.fullmatch(text(value)):
        raise ValueError(f"uuid {value!r}")
    return text(value)


def tap(value: Any) -> str:
    """The name of a tap."""
    if not is_tap_name(text(value)):
        raise ValueError(f"tap {value!r}")
    return text(value)


def number(value: Any) -> int:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    return value


def truth(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def optional(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Null, or what `parse` takes."""
    return lambda value: None if value is None else parse(value)


def each(parse: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """A list of what `parse` takes."""

    def parse_list(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise TypeError(f"{value!r} is not a list")
        return tuple(map(parse, value))

    return parse_list


def lists_by_name(value: Any) -> Mapping[str, tuple[str, ...]]:
    """Lists of texts by name."""
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} has no names")
    return {text(key): each(text)(values) for key, values in value.items()}
