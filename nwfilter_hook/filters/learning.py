"""
How an interface's addresses are learned: what its parameters say.

In:  a reference's parameters.
Out: a `Learning`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..base.addresses import parse_ipv4, parse_ipv6, parse_mac
from ..base.dataclass import dataclass
from ..base.errors import BadValue
from ..base.text import did_you_mean
from .model import FilterRef, Learned, Prefix
from .values import Number, parse_prefix

MODE = "CTRL_IP_LEARNING"
MAXIMUM = "CTRL_IP_LEARNING_MAX"
IPV6_MODE = "CTRL_IPV6_LEARNING"
IPV6_MAXIMUM = "CTRL_IPV6_LEARNING_MAX"
MAC_MAXIMUM = "CTRL_MAC_LEARNING_MAX"
FIXED = {"IP": "CTRL_IP_FIXED", "IPV6": "CTRL_IPV6_FIXED"}
"""By variable, the parameter with the addresses that the guest has besides those that are learned for it."""
IPV6_LINK_LOCAL = "CTRL_IPV6_LINK_LOCAL"
MAX_ADDRESSES = 256
"""Upper bound of all three maxima."""
MAX_FIXED = 64
"""Of one family; each makes a rule of its own."""


def read_learning(reference: FilterRef) -> Learning:
    """
    What the interface's parameters say about learning; a list's first value counts.

    Raises:
        BadValue: one of them has a value that means nothing.
    """
    mode = _choice(reference, MODE, ("any", "dhcp", "none"), "any")
    ipv6 = _choice(reference, IPV6_MODE, ("any", "none"), "none") == "any"
    return Learning(
        mode=mode,
        maximum=_maximum(reference, MAXIMUM, Learning().maximum),
        servers=_servers(reference) if mode == "dhcp" else (),
        ipv6=ipv6,
        ipv6_maximum=_maximum(reference, IPV6_MAXIMUM, Learning().ipv6_maximum),
        fixed=_fixed(reference, "IP", mode != "none"),
        ipv6_fixed=_fixed(reference, "IPV6", ipv6),
        macs=_macs(reference, reference.parameters.get("MAC", ())),
        link_local=_choice(reference, IPV6_LINK_LOCAL, ("mac", "any"), "mac") == "any",
    )


def learned_macs(reference: FilterRef, given: Iterable[str]) -> Learned | None:
    """
    What $MAC is where others than the `given` MACs are learned; None where none are.

    Raises:
        BadValue: a value that means nothing.
    """
    if MAC_MAXIMUM not in reference.parameters:
        return None
    return Learned("MAC", _macs(reference, given), _maximum(reference, MAC_MAXIMUM, 1))


def _macs(reference: FilterRef, given: Iterable[str]) -> tuple[int, ...]:
    macs: dict[int, None] = {}
    for text in given:
        try:
            macs[parse_mac(text)] = None
        except ValueError as error:
            raise BadValue(f"parameter MAC: {text!r} is not {error}", reference.source) from None
    return tuple(macs)


def check_fixed(reference: FilterRef) -> None:
    """
    Addresses that are given are given by the variable itself; besides learned ones by another parameter; not by both.

    Raises:
        BadValue: they are.
    """
    for variable, name in FIXED.items():
        if name in reference.parameters and variable in reference.parameters:
            message = (
                f"parameter {name}: {variable} is given, so none is learned; give these addresses as {variable}, too"
            )
            raise BadValue(message, reference.source)


def _fixed(reference: FilterRef, variable: str, learnt: bool) -> tuple[int | Prefix, ...]:
    name, version = FIXED[variable], 4 if variable == "IP" else 6
    given = reference.parameters.get(name, ())
    if given and not learnt:
        raise BadValue(
            f"parameter {name}: no {variable} is learned; give these addresses as {variable}", reference.source
        )
    if len(given) > MAX_FIXED:
        raise BadValue(f"parameter {name}: {len(given)} addresses, more than {MAX_FIXED}", reference.source)
    found: dict[int | Prefix, None] = {}
    for text in given:
        try:
            value = parse_prefix(text, version)
        except ValueError as error:
            message = f"parameter {name}: {text!r} is not {error}"
            raise BadValue(message + _other_family(variable, text), reference.source) from None
        if not _is_hosts(value.address if isinstance(value, Prefix) else value, version):
            raise BadValue(f"parameter {name}: no host can have {text}", reference.source)
        found[value] = None
    return tuple(found)


def _other_family(variable: str, text: str) -> str:
    other, version = ("IPV6", 6) if variable == "IP" else ("IP", 4)
    return f"; write {FIXED[other]} for it" if _is(lambda given: parse_prefix(given, version), text) else ""


def _is_hosts(address: int, version: int) -> bool:
    """Not unspecified, nor multicast, nor reserved: RFC 1112, RFC 4291 2.4."""
    return 0 < address < 0xE0000000 if version == 4 else 0 < address < 0xFF << 120


def _choice(reference: FilterRef, name: str, choices: Sequence[str], default: str) -> str:
    text = reference.parameters.get(name, (default,))[0]
    if text.lower() not in choices:
        meant = did_you_mean(text, choices)
        raise BadValue(f"parameter {name}: {text!r} is not one of {' '.join(choices)}{meant}", reference.source)
    return text.lower()


def _maximum(reference: FilterRef, name: str, default: int) -> int:
    text = reference.parameters.get(name, (str(default),))[0]
    try:
        value = Number(1, MAX_ADDRESSES)(text)
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


def _is(parse: Callable[[str], object], text: str) -> bool:
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
        maximum: how many addresses are learned for $IP; under "dhcp" it is the current lease, whatever this says.
        servers: the DHCP servers whose leases count; () for all.
        ipv6: whether $IPV6 is learned.
        ipv6_maximum: how many addresses are learned for $IPV6.
        fixed, ipv6_fixed: addresses that the guest has besides the learned ones, and that teach nothing.
        link_local: whether link-local addresses are among those; else the guest has the one of its MAC only.
        macs: the MACs that parameters give; () if it has the interface's.
    """

    mode: str = "any"
    maximum: int = 1
    servers: tuple[int, ...] = ()
    ipv6: bool = False
    ipv6_maximum: int = 8
    fixed: tuple[int | Prefix, ...] = ()
    ipv6_fixed: tuple[int | Prefix, ...] = ()
    link_local: bool = False
    macs: tuple[int, ...] = ()
