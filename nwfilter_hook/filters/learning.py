"""
How an interface's addresses are learned: what its parameters say.

In:  a reference's parameters.
Out: a `Learning`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..base.addresses import parse_ipv4, parse_ipv6
from ..base.dataclass import dataclass
from ..base.errors import BadValue
from .model import FilterRef
from .types import number

MODE = "CTRL_IP_LEARNING"
MAXIMUM = "CTRL_IP_LEARNING_MAX"
IPV6_MODE = "CTRL_IPV6_LEARNING"
IPV6_MAXIMUM = "CTRL_IPV6_LEARNING_MAX"
MAX_ADDRESSES = 256
"""Upper bound of both maxima."""


def read_learning(reference: FilterRef) -> Learning:
    """
    What the interface's parameters say about learning; a list's first value counts.

    Raises:
        BadValue: one of them has a value that means nothing.
    """
    mode = _choice(reference, MODE, ("any", "dhcp", "none"), "any")
    return Learning(
        mode=mode,
        maximum=_maximum(reference, MAXIMUM, Learning().maximum),
        servers=_servers(reference) if mode == "dhcp" else (),
        ipv6=_choice(reference, IPV6_MODE, ("any", "none"), "none") == "any",
        ipv6_maximum=_maximum(reference, IPV6_MAXIMUM, Learning().ipv6_maximum),
    )


def _choice(reference: FilterRef, name: str, choices: Sequence[str], default: str) -> str:
    text = reference.parameters.get(name, (default,))[0]
    if text.lower() not in choices:
        raise BadValue(f"parameter {name}: {text!r} is not one of {' '.join(choices)}", reference.source)
    return text.lower()


def _maximum(reference: FilterRef, name: str, default: int) -> int:
    text = reference.parameters.get(name, (str(default),))[0]
    try:
        value = number(1, MAX_ADDRESSES)(text)
    except ValueError as error:
        raise BadValue(f"parameter {name}: {text!r} is not {error}", reference.source) from None
    assert isinstance(value, int)
    return value


def _servers(reference: FilterRef) -> tuple[int, ...]:
    """The IPv4 addresses among DHCPSERVER, which allow-dhcpv6-server takes IPv6 addresses from."""
    given = reference.parameters.get("DHCPSERVER", ())
    servers = dict.fromkeys(parse_ipv4(text) for text in given if _is(parse_ipv4, text))
    for text in given:
        # "no server given" would let every server teach
        if not _is(parse_ipv4, text) and not (servers and _is(parse_ipv6, text)):
            raise BadValue(f"parameter DHCPSERVER: {text!r} is not an IPv4 address", reference.source)
    return tuple(servers)


def _is(parse: Callable[[str], int], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def is_learnable(variable: str, learning: Learning) -> bool:
    """Whether the variable may be left without a value."""
    return {"IP": learning.mode != "none", "IPV6": learning.ipv6}.get(variable, False)


@dataclass(frozen=True)
class Learning:
    """
    How an interface's addresses are learned where nobody gives them.

    Attributes:
        mode: of $IP: "any" (what the guest sends first), "dhcp" (what it is leased) or "none".
        maximum: how many addresses are learned for $IP.
        servers: the DHCP servers whose leases count; () for all.
        ipv6: whether $IPV6 is learned.
        ipv6_maximum: how many addresses are learned for $IPV6.
    """

    mode: str = "any"
    maximum: int = 1
    servers: tuple[int, ...] = ()
    ipv6: bool = False
    ipv6_maximum: int = 8
