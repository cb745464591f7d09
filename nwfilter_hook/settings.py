"""
What the keys of the configuration file may hold.

In:  the text of a value.
Out: what the attribute of that name in `config.Config` becomes; or a ValueError that says what is wrong with it.

On the path of a hook that has nothing to do: nothing is imported.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

COUNTERS = ("none", "drops", "all")
ENDS_OF_CHAIN = ("return", "accept")
MAX_TIMEOUT_S = 600
MAX_CONNECTIONS = 1_000_000


def _path(value: str, key: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{key}: {value!r} is not an absolute path")
    return value


def _paths(value: str, key: str) -> tuple[str, ...]:
    return tuple(_path(part, key) for part in value.split(":"))


def _program(value: str, key: str) -> str:
    if not value:
        raise ValueError(f"{key} needs a path")
    return value


def _counters(value: str, key: str) -> str:
    return _one_of(COUNTERS, value, key)


def _end_of_chain(value: str, key: str) -> str:
    return _one_of(ENDS_OF_CHAIN, value, key)


def _one_of(known: tuple[str, ...], value: str, key: str) -> str:
    if value not in known:
        raise ValueError(f"{key} = {value!r} is not one of {' '.join(known)}")
    return value


def _seconds(value: str, key: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise ValueError(f"{key} = {value!r} is not a number of seconds above 0 and up to {MAX_TIMEOUT_S}")
    return seconds


def _connections(value: str, key: str) -> str:
    one, _, parts = value.partition("/")
    number = parts if one == "1" and parts else value
    is_number = number.isascii() and number.isdigit() and len(number) <= len(str(MAX_CONNECTIONS))
    if value != "none" and not (is_number and 1 <= int(number) <= MAX_CONNECTIONS):
        raise ValueError(f"{key} = {value!r} is not 1/N, a number from 1 to {MAX_CONNECTIONS}, or none")
    return value


SECTIONS: dict[str, dict[str, Callable[[str, str], object]]] = {
    "paths": {"state_dir": _path, "filter_dirs": _paths},
    "nftables": {"counters": _counters, "nft": _program, "timeout_s": _seconds, "connections": _connections},
    "language": {"end_of_chain": _end_of_chain},
    "defaults": {},
}
"""Section, key, and what makes the attribute of that name of the value and the key."""
