"""
What filters and parameters may be called, and what a parameter may hold; told without regular expressions, which a
configuration with defaults would otherwise load for every guest.
"""

from __future__ import annotations

MAX_FILTER_NAME = 100
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_IN_FILTER_NAMES = _LETTERS | frozenset(".:+@-")
_IN_VALUES = _LETTERS | frozenset(".:")


def filter_name_fault(name: str) -> str | None:
    """Why `name` can't be a filter's, which is a file's name and stands in nft comments; None if it can."""
    if not name:
        return "a filter needs a name"
    if len(name) <= MAX_FILTER_NAME and name[0] in _LETTERS and _IN_FILTER_NAMES.issuperset(name):
        return None
    usable = f"up to {MAX_FILTER_NAME} of A-Z a-z 0-9 _ . : + @ -, beginning with a letter or digit"
    return f"filter name {name!r}: use {usable}{_meant(name, _IN_FILTER_NAMES, '-')}"


def parameter_fault(name: str, value: str, *, networks: bool) -> str | None:
    """
    Why this can't be a parameter, or None. libvirt drops such a one without a word.

    Args:
        networks: whether a value may be a network such as 192.0.2.8/29: where it doesn't go through libvirt.
    """
    if not name or not _LETTERS.issuperset(name):
        return f"parameter name {name!r}: use A-Z a-z 0-9 _{_meant(name, _LETTERS, '_')}"
    if value and _IN_VALUES.issuperset(value):
        return None
    start, _, length = value.partition("/")
    is_network = bool(start) and _IN_VALUES.issuperset(start) and 1 <= len(length) <= 3 and length.isdecimal()
    if is_network and length.isascii() and networks:
        return None
    hint = _value_meant(value)
    if networks:
        hint = f" and, in a network, a length such as /29{hint}"
    elif is_network:
        hint = "; libvirt drops a network here: give it in <metadata>"
    return f"parameter {name}: value {value!r} may only hold A-Z a-z 0-9 _ . :{hint}"


def _meant(name: str, usable: frozenset[str], instead: str) -> str:
    """ "; did you mean 'my-filter'?" for a name with other characters than those, or ""."""
    plain = "".join(char if char in usable else instead for char in name.strip(" $")).lstrip(".:+@-")
    return f"; did you mean {plain[:MAX_FILTER_NAME]!r}?" if plain.strip(instead) else ""


def _value_meant(value: str) -> str:
    """What to do about a value that can't be."""
    plain = value.strip().strip("[]'\"")
    if plain.count("-") == 5 and _IN_VALUES.issuperset(plain.replace("-", ":")):
        return f"; write {plain.replace('-', ':')}"
    if any(char in plain for char in ",; \t"):
        return "; for a list repeat the parameter"
    return f"; write {plain}" if plain and _IN_VALUES.issuperset(plain) else ""
