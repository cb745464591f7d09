"""
Where the type of a DHCP message stands. RFC 2132.

In:  a message type, or None for any.
Out: tests for the 16 octets behind the magic cookie.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ruleset.fields import Field
from ..ruleset.model import Masked


def message_types(message: int | None) -> Iterator[Masked]:
    """
    Tests for the message type (option 53, RFC 2132 9.6), any or this one, where it is the first option, the second
    behind one of usual length, or the third behind two addresses.
    """
    places: tuple[tuple[int, ...], ...] = ((), (4,), (1,), (2,), (8,), (4, 4))
    for lengths in places:
        at = 0
        mask = value = 0
        for length in lengths:
            mask |= _octets(at + 1, 0xFF)
            value |= _octets(at + 1, length)
            at += 2 + length
        mask |= _octets(at, 0xFF) | _octets(at + 1, 0xFF)
        value |= _octets(at, 53) | _octets(at + 1, 1)
        if message is not None:
            mask |= _octets(at + 2, 0xFF)
            value |= _octets(at + 2, message)
        yield Masked(mask, value)


def _octets(at: int, value: int) -> int:
    """`value` as the octet number `at` of DHCP_OPTIONS."""
    return value << Field.DHCP_OPTIONS.bits - 8 * (at + 1)
