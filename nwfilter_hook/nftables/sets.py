"""
Named sets in nft: what they are called, how they are declared, filled and emptied.

In:  `NamedSet`s, or the names of sets in a record.
Out: names and statements of nft.

    learned/TAP                addresses of the guest, as numbers; learned6/TAP for IPv6
    learned/TAP/…              /max-N: as many as N; /lease: the newest lease; /ffffff00: under this mask
    macs/TAP/max-N             as many as N further MACs of the guest
    leased/TAP                 holds the tap once it has a lease
    leased/TAP/address         map from the tap to its newest lease
    unread/TAP                 addresses in DHCP answers whose type could not be read
    connlimit/TAP/N            ipset/NAME of the administrator

The name tells the type: `add` of a set that exists is refused unless the type is the same. An address stays for
TIMEOUT_S, so that what is left of it tells since when the kernel has it; `add` of an element doesn't begin anew.

nft has no names for the fields of RARP, neighbour discovery or DHCP, and takes a number from the packet
(`@th,192,32`) for no address: it doesn't look one up in a set of addresses, and since 1.0.9 doesn't store it there. So
what is learned are numbers, and the fields that they are compared with are written as numbers too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..base.dataclass import dataclass
from ..ruleset.fields import Field, Kind
from ..ruleset.model import Attachment, NamedSet, Purpose, Ruleset, Tree
from ..ruleset.numbers import DHCP_COOKIE
from .fields import place

TIMEOUT_S = 3650 * 86400
_TIMEOUT = "flags dynamic,timeout; timeout 3650d;"
_DEFAULT_SIZES = {Kind.IPV4: 1, Kind.IPV6: 8}
# One that was replaced counts until the kernel's collector has seen it, a second later.
_NEWEST_SIZE = 64
MAX_SOURCES = 65535
"""How many sources of connections a set counts at a time; one goes with its last connection, a second later."""
_LEASE = "lease"
_ADDRESS = "address"

# --- names ------------------------------------------------------------------------------------------------------------


def encode(name: str) -> str:
    """nwfilter names may hold what nft identifiers may not: written as "/" and two hexadecimal digits."""
    return re.sub(r"[^A-Za-z0-9_.-]", lambda match: f"/{ord(match[0]):02x}", name)


def set_name(tap: str, named: NamedSet) -> str:
    """`learned/vnet0`, `learned/vnet0/ffffff00`, `connlimit/vnet0/0`, `ipset/NAME`."""
    version = "6" if named.kind is Kind.IPV6 else ""
    prefix = f"{named.purpose.value}{version}"
    if named.purpose is Purpose.IPSET:
        return f"{prefix}/{encode(named.name)}" + (f"/{named.dimensions}" if named.dimensions > 1 else "")
    if named.purpose is Purpose.CONNLIMIT:
        return f"{prefix}/{tap}/{named.name}"
    parts = [prefix, tap]
    if named.purpose is Purpose.MACS:
        parts.append(f"max-{named.size}")
    if named.purpose is Purpose.LEARNED:
        if named.newest:
            parts.append(_LEASE)
        elif named.size != _DEFAULT_SIZES[named.kind]:
            parts.append(f"max-{named.size}")
        if named.mask is not None:
            parts.append(f"{named.mask:08x}")
    return "/".join(parts)


def lease_map(tap: str) -> str:
    """The map from the tap to its newest lease."""
    return f"{Purpose.LEASED.value}/{tap}/{_ADDRESS}"


@dataclass(frozen=True)
class LearnedName:
    """
    What the name of a set of learned addresses tells.

    Attributes:
        version: 4 or 6.
        newest: the newest replaces what is there.
        size: how many addresses are learned.
        mask: None for whole addresses.
    """

    name: str
    version: int
    newest: bool
    size: int
    mask: int | None

    def element(self, address: int) -> str:
        """The address as it is in this set."""
        return f"{address if self.mask is None else address & self.mask:#x}"


def parse_learned(name: str) -> LearnedName | None:
    """None for the name of another set."""
    purpose, *parts = name.split("/")
    if purpose not in (Purpose.LEARNED.value, f"{Purpose.LEARNED.value}6"):
        return None
    version = 6 if purpose.endswith("6") else 4
    size = _DEFAULT_SIZES[Kind.IPV6 if version == 6 else Kind.IPV4]
    mask = None
    for part in parts[1:]:
        if part.startswith("max-"):
            size = int(part[4:])
        elif part != _LEASE:
            mask = int(part, 16)
    return LearnedName(name, version, _LEASE in parts[1:], size, mask)


def names_of(ruleset: Ruleset) -> tuple[str, ...]:
    """The tap's own sets and maps in the kernel (not the administrator's)."""
    tap = ruleset.tap
    names = [set_name(tap, named) for named in ruleset.sets if named.purpose is not Purpose.IPSET]
    if any(named.newest for named in ruleset.sets):
        names.append(lease_map(tap))
    return tuple(names)


# --- declarations -----------------------------------------------------------------------------------------------------


def declaration(name: str, dimensions: int = 1) -> str:
    """`set NAME { … }`'s or `map NAME { … }`'s braces; whether it is a map is `kind_of`'s to say."""
    purpose, *_ = name.split("/")
    learned = parse_learned(name)
    if learned is not None:
        bits = 128 if learned.version == 6 else 32
        initial = 1 if learned.version == 6 else 0
        return (
            f"{{ typeof @nh,64,{bits}; size {_NEWEST_SIZE if learned.newest else learned.size + initial}; {_TIMEOUT} }}"
        )
    if kind_of(name) == "map":
        return f"{{ typeof oifname : @nh,96,32; size {_NEWEST_SIZE}; {_TIMEOUT} }}"
    if purpose == Purpose.LEASED.value:
        return f"{{ type ifname; size 1; {_TIMEOUT} }}"
    if purpose == Purpose.MACS.value:
        return f"{{ type ether_addr; size {name.rpartition('-')[2]}; {_TIMEOUT} }}"
    if purpose == Purpose.UNREAD.value:
        return f"{{ typeof @nh,64,32; size 8; {_TIMEOUT} }}"
    version = "ipv6_addr" if purpose.endswith("6") else "ipv4_addr"
    if purpose.startswith(Purpose.CONNLIMIT.value):
        return f"{{ type {version}; size {MAX_SOURCES}; flags dynamic; }}"
    return f"{{ type {' . '.join([version] * dimensions)}; flags interval; }}"


def kind_of(name: str) -> str:
    """ "set" or "map"."""
    purpose, *parts = name.split("/")
    return "map" if purpose == Purpose.LEASED.value and parts[1:] == [_ADDRESS] else "set"


def is_remembered(name: str) -> bool:
    """Whether a re-apply keeps its elements (all but what counts connections, which the kernel fills anew)."""
    return not counts_connections(name)


def counts_connections(name: str) -> bool:
    """Whether the set is one that counts the connections of sources."""
    return name.startswith(Purpose.CONNLIMIT.value)


def initial_elements(ruleset: Ruleset) -> Iterator[tuple[str, str]]:
    """(set, element) for what is there from the beginning."""
    for named in ruleset.sets:
        name = set_name(ruleset.tap, named)
        learned = parse_learned(name)
        for value in named.initial:
            assert learned is not None
            yield name, learned.element(value)


# --- in rules ---------------------------------------------------------------------------------------------------------


def interface_field(tree: Tree, attachment: Attachment) -> str:
    """What nft calls the tap, seen from the hook of this tree: what a macvtap's guest sends goes out by it."""
    sends = tree in (Tree.FROM_L2, Tree.FROM_L3)
    return "oifname" if sends is (attachment is Attachment.MACVTAP) else "iifname"


def store(tap: str, field: str, named: NamedSet, *, operation: str = "add") -> str:
    """
    The statement that puts a field into a set, or takes it out.

    Args:
        field: as nft calls it; for a set of learned addresses, its place in the packet.
    """
    key = field if named.mask is None else f"{field} & {named.mask:#x}"
    return f"{operation} @{set_name(tap, named)} {{ {key} }}"


def replace_newest(tap: str, stores: Iterable[tuple[Field, NamedSet]], interface: str) -> tuple[tuple[str, ...], str]:
    """
    Statements that make the address of a DHCP message the only element of those sets in `stores` whose newest element
    counts: those of a rule to go first (if there is such a set), and those of the rule that stores.

    nft can't empty a set from within a rule; it can delete the element that the packet holds. So the first rule
    fetches the old address from the map lease/TAP, writes it over the message's magic cookie, deletes what stands
    there, and restores the cookie, which is the same in every DHCP message. The second rule stores the new address.
    Neither does anything if the address is the newest already.
    """
    address, scratch = place(Field.DHCP_ADDRESS), place(Field.DHCP_COOKIE)
    changing = [named for field, named in stores if named.newest and field is Field.DHCP_ADDRESS]
    if not changing:
        return (), ""
    whole = next(named for named in changing if named.mask is None)
    differs = f"{address} != @{set_name(tap, whole)}"
    lease = f"@{lease_map(tap)} {{ {interface} : {address} }}"
    deletions = [store(tap, scratch, named, operation="delete") for named in changing]
    additions = [store(tap, address, named) for named in changing]
    fetch, restore = f"{scratch} set {interface} map @{lease_map(tap)}", f"{scratch} set {DHCP_COOKIE:#x}"
    forget = " ".join([differs, fetch, *deletions, restore])
    learn = f"{differs} delete {lease} add {lease} {' '.join(additions)}"
    return (forget,), learn
