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
    return f"filter name {name!r}: use {usable}"


def parameter_fault(name: str, value: str, *, networks: bool) -> str | None:
    """
    Why this can't be a parameter, or None. libvirt drops such a one without a word.

    Args:
        networks: whether a value may be a network such as 192.0.2.8/29: where it doesn't go through libvirt.
    """
    if not name or not _LETTERS.issuperset(name):
        return f"parameter name {name!r}: use A-Z a-z 0-9 _"
    if value and _IN_VALUES.issuperset(value):
        return None
    start, _, length = value.partition("/")
    is_network = bool(start) and _IN_VALUES.issuperset(start) and 1 <= len(length) <= 3 and length.isdecimal()
    if is_network and length.isascii() and networks:
        return None
    hint = "; for a list repeat the parameter" if "," in value else ""
    if networks:
        hint = f" and, in a network, a length such as /29{hint}"
    elif is_network:
        hint = "; libvirt drops a network here: give it in <metadata>"
    return f"parameter {name}: value {value!r} may only hold A-Z a-z 0-9 _ . :{hint}"
