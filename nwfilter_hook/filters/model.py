"""
What a filter file says, variables still in it. All values are frozen, compared with ==.

What is left when every variable has its value is in bound.py, what rules compile to in ruleset/model.py.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from ..base.dataclass import dataclass
from ..base.errors import Source

Parameters = Mapping[str, tuple[str, ...]]
"""Variable name to its values, in the order given; one value is a list of one."""


class Direction(enum.Enum):
    """Of a rule, seen from the guest: "out" is what the guest sends."""

    IN = "in"
    OUT = "out"
    INOUT = "inout"


class Action(enum.Enum):
    """Of a rule, spelled as in the XML."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    CONTINUE = "continue"


@dataclass(frozen=True)
class Variable:
    """
    An attribute's value that is a variable access: `$NAME`, `$NAME[@iterator]` or `$NAME[index]`.

    Attributes:
        iterator: accesses with the same number advance together; unused when `index` is given.
        index: the 0-based element to take, or None to iterate.
    """

    name: str
    iterator: int = 0
    index: int | None = None

    def __str__(self) -> str:
        if self.index is not None:
            return f"${self.name}[{self.index}]"
        return f"${self.name}[@{self.iterator}]" if self.iterator else f"${self.name}"


@dataclass(frozen=True)
class Prefix:
    """The addresses of a network, where a parameter gives one: those that equal `address` under `mask`."""

    address: int
    mask: int


@dataclass(frozen=True)
class Learned:
    """
    Stands for the addresses that the kernel learns: the guest's IPv4 addresses for $IP, IPv6 for $IPV6, MACs for $MAC.

    Attributes:
        fixed: addresses and networks that it has besides.
        maximum: how many are learned (MAC).
    """

    variable: str = "IP"
    fixed: tuple[int | Prefix, ...] = ()
    maximum: int = 1


@dataclass(frozen=True)
class SetFlags:
    """The `ipsetflags` of a rule: for each dimension of the set, True for the source side."""

    source: tuple[bool, ...]


@dataclass(frozen=True)
class TcpFlags:
    """`flags='MASK/FLAGS'` as bits of the TCP flags octet."""

    mask: int
    flags: int


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Value = Union[int, str, bool, "frozenset[str]", TcpFlags, SetFlags, Learned, Prefix]
else:
    Value = object  # typing takes 2 ms of a hook's time
"""An attribute's typed value. Numbers, addresses and masks are ints (of a mask the bits, whatever its spelling)."""


@dataclass(frozen=True)
class Setting:
    """
    One attribute of a protocol element: its value, its sign, and where it stands.

    Attributes:
        hexadecimal: a number that was written so, and has no name.
    """

    value: Value | Variable
    negated: bool
    source: Source
    hexadecimal: bool = False


@dataclass(frozen=True)
class FilterRule:
    """
    One <rule>, its variables still in it.

    Attributes:
        priority: -1000 to 1000, lower is evaluated first.
        statematch: False switches connection state off (L3 only).
        element: name of the protocol element, or None for a rule that matches every frame of its chain.
        settings: by attribute name; several elements of one name are merged already.
        comments: XML comments in it.
    """

    action: Action
    direction: Direction
    priority: int
    statematch: bool
    element: str | None
    settings: Mapping[str, Setting]
    source: Source
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilterRef:
    """
    A reference to a filter, with parameters: from an interface, or from within another filter.

    Attributes:
        comments: XML comments in it.
    """

    filter: str
    parameters: Parameters
    source: Source
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filter:
    """
    One filter file.

    Attributes:
        uuid: None if the file has none.
        chain: "root", or the name of the sub-chain its L2 rules go to.
        priority: of the sub-chain among the root chain's rules.
        entries: rules and references in document order.
        comments: the text of each XML comment between them, behind so many entries; -1 before the filter begins, one
            more than there are entries after it has ended.
    """

    name: str
    uuid: str | None
    chain: str
    priority: int
    entries: tuple[FilterRule | FilterRef, ...]
    source: Source
    comments: tuple[tuple[int, str], ...] = ()
