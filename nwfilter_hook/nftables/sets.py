"""
Named sets in nft: what they are called, how they are declared, filled and emptied.

In:  `NamedSet`s, or the names of sets in a record.
Out: names and statements of nft.

    learned/TAP/SEG            addresses of the guest in a segment, as numbers; learned6/TAP/SEG for IPv6
    learned/TAP/SEG/…          /of-GUEST: whose tap it is; /max-N: as many as N; /lease: the newest lease; /ffffff00:
                               under this mask
    macs/TAP/max-N             as many as N further MACs of the guest, for ten years
    leased/TAP                 holds the tap once it has a lease
    leased/TAP/address         map from the tap to its newest lease
    unread/TAP                 addresses in DHCP answers of the last day whose type could not be read
    connlimit/TAP/N            ipset/NAME of the administrator
    taken/SEG, seen/SEG …      those of a segment (learning_rules.py), for IPv6 with a 6 before the slash
    kin/SEG/GUEST              addresses that taps of this guest have learned there; /day: that go after a day
    reserved-by/SEG            first and last address, and tap: who contributes to reserved/SEG and reserved-nets/SEG

SEG is the bridge (or lower device, for macvtaps) that taps share, or a tap that is alone. The name tells the type:
`add` of a set that exists is refused unless the type is the same.

nft has no names for the fields of RARP, neighbour discovery or DHCP, and takes a number from the packet
(`@th,192,32`) for no address: it doesn't look one up in a set of addresses, and since 1.0.9 doesn't store it there. So
what is learned are numbers, and the fields that they are compared with are written as numbers too.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from ..base.addresses import is_tap_name
from ..base.dataclass import dataclass
from ..ruleset.fields import ValueType
from ..ruleset.model import Attachment, NamedSet, Ruleset, SetPurpose, Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DAY_S = 86400
IDLE_S = DAY_S
"""After which one of several learned addresses is forgotten, if the guest doesn't use it."""
CLAIM_S = IDLE_S + 60
SEEN_S = 60
CLAIMED_S = 1
TIMEOUT_S = 3650 * DAY_S
"""Of learned MACs: what is left of it tells since when the kernel has one; `add` doesn't begin anew."""
_DYNAMIC = "flags dynamic,timeout;"
_MANY = 65535
"""Of addresses in a segment: with as many learned, nobody learns another."""
_DEFAULT_SIZES = {ValueType.IPV4: 1, ValueType.IPV6: 8}
# One that was replaced counts until the kernel's collector has seen it, a second later.
_NEWEST_SIZE = 64
MAX_SOURCES = 65535
"""How many sources of connections a set counts at a time; one goes with its last connection, a second later."""
_LEASE = "lease"
_OF = "of-"
_ADDRESS = "address"
_RESERVATIONS = (SetPurpose.RESERVED, SetPurpose.RESERVED_NETS, SetPurpose.RESERVED_BY)
SEGMENT_PURPOSES = (SetPurpose.SEEN, SetPurpose.TAKEN, SetPurpose.CLAIMED, SetPurpose.SINCE, *_RESERVATIONS)

# --- names ------------------------------------------------------------------------------------------------------------


def encode(name: str) -> str:
    """nwfilter names may hold what nft identifiers may not: written as "/" and two hexadecimal digits."""
    return re.sub(r"[^A-Za-z0-9_.-]", lambda match: f"/{ord(match[0]):02x}", name)


def set_name(tap: str, named: NamedSet) -> str:
    """`learned/vnet0/br0`, `learned/vnet0/br0/ffffff00`, `connlimit/vnet0/0`, `ipset/NAME`."""
    version = "6" if named.kind is ValueType.IPV6 else ""
    prefix = f"{named.purpose.value}{version}"
    if named.purpose in SEGMENT_PURPOSES:
        return segment_set(named.purpose, named.kind, named.segment or tap)
    if named.purpose is SetPurpose.IPSET:
        return f"{prefix}/{encode(named.name)}" + (f"/{named.dimensions}" if named.dimensions > 1 else "")
    if named.purpose is SetPurpose.CONNLIMIT:
        return f"{prefix}/{tap}/{named.name}"
    parts = [prefix, tap]
    if named.purpose is SetPurpose.MACS:
        parts.append(f"max-{named.size}")
    if named.purpose is SetPurpose.LEARNED:
        parts.append(_plain(named.segment or tap))
        if named.guest:
            parts.append(f"{_OF}{named.guest}")
        if named.newest:
            parts.append(_LEASE)
        elif named.size != _DEFAULT_SIZES[named.kind]:
            parts.append(f"max-{named.size}")
        if named.mask is not None:
            parts.append(f"{named.mask:08x}")
    return "/".join(parts)


def segment_set(purpose: SetPurpose, kind: ValueType, segment: str) -> str:
    """`taken/br0`, `taken6/br0`."""
    return f"{purpose.value}{'6' if kind is ValueType.IPV6 else ''}/{_plain(segment)}"


def kin_set(kind: ValueType, segment: str, guest: str, *, gives_way: bool) -> str:
    """`kin/br0/GUEST`; another for addresses that give way, which must not outlive those in `taken/br0`."""
    return f"{segment_set(SetPurpose.KIN, kind, segment)}/{guest}{'/day' if gives_way else ''}"


def _plain(device: str) -> str:
    """A device's name; in hexadecimal, if nft doesn't take it."""
    return device if is_tap_name(device) else f"0x{device.encode(errors='surrogateescape').hex()}"


def lease_map(tap: str) -> str:
    """The map from the tap to its newest lease."""
    return f"{SetPurpose.LEASED.value}/{tap}/{_ADDRESS}"


@dataclass(frozen=True)
class LearnedName:
    """
    What the name of a set of learned addresses tells.

    Attributes:
        version: 4 or 6.
        newest: the newest replaces what is there.
        size: how many addresses are learned.
        mask: None for whole addresses.
        guest: whose tap it is; "" for a tap of no guest.
    """

    name: str
    tap: str
    segment: str
    guest: str
    version: int
    newest: bool
    size: int
    mask: int | None

    @property
    def kin(self) -> str | None:
        """The set of what the guest's taps share; leases, of which each tap has its own, aren't."""
        if not self.guest or self.newest:
            return None
        return kin_set(self.kind, self.segment, self.guest, gives_way=self.size > 1)

    @property
    def kind(self) -> ValueType:
        return ValueType.IPV6 if self.version == 6 else ValueType.IPV4

    def text(self, address: int) -> str:
        """As people write it."""
        return str(ipaddress.IPv6Address(address) if self.version == 6 else ipaddress.IPv4Address(address))

    def element(self, address: int) -> str:
        """The address as it is in this set."""
        return f"{address if self.mask is None else address & self.mask:#x}"


def parse_learned(name: str) -> LearnedName | None:
    """None for the name of another set."""
    purpose, *parts = name.split("/")
    if purpose not in (SetPurpose.LEARNED.value, f"{SetPurpose.LEARNED.value}6") or len(parts) < 2:
        return None
    tap, segment, *more = parts
    version = 6 if purpose.endswith("6") else 4
    size = _DEFAULT_SIZES[ValueType.IPV6 if version == 6 else ValueType.IPV4]
    mask, guest = None, ""
    for part in more:
        if part.startswith("max-"):
            size = int(part[4:])
        elif part.startswith(_OF):
            guest = part.removeprefix(_OF)
        elif part != _LEASE:
            mask = int(part, 16)
    return LearnedName(name, tap, segment, guest, version, _LEASE in more, size, mask)


def names_of(ruleset: Ruleset) -> tuple[str, ...]:
    """The tap's own sets and maps in the kernel (not the administrator's, nor those of a segment with others)."""
    tap = ruleset.tap
    names = [set_name(tap, named) for named in ruleset.sets if named.purpose is not SetPurpose.IPSET]
    if any(named.newest for named in ruleset.sets):
        names.append(lease_map(tap))
    return (*names, *(() if ruleset.segment.name else segment_sets(ruleset)))


def segment_sets(ruleset: Ruleset) -> tuple[str, ...]:
    """The sets of the tap's segment that its rules, or what is reserved for it, need."""
    segment, names = ruleset.segment, []
    for kind in (ValueType.IPV4, ValueType.IPV6):
        purposes: tuple[SetPurpose, ...] = ()
        if any(named.purpose is SetPurpose.LEARNED and named.kind is kind for named in ruleset.sets):
            purposes = SEGMENT_PURPOSES
        elif segment.name and any(each.kind is kind for each in segment.reserved):
            purposes = (SetPurpose.SEEN, *_RESERVATIONS)
        names += [segment_set(purpose, kind, segment.name or ruleset.tap) for purpose in purposes]
    learned = (
        parse_learned(set_name(ruleset.tap, each)) for each in ruleset.sets if each.purpose is SetPurpose.LEARNED
    )
    names += dict.fromkeys(each.kin for each in learned if each and each.kin)
    return tuple(names)


# --- declarations -----------------------------------------------------------------------------------------------------


def declaration(name: str, dimensions: int = 1) -> str:
    """`set NAME { … }`'s or `map NAME { … }`'s braces; whether it is a map is `kind_of`'s to say."""
    purpose = name.split("/")[0]
    learned = parse_learned(name)
    if learned is not None:
        initial = 1 if learned.version == 6 else 0
        size = _NEWEST_SIZE if learned.newest else learned.size + initial
        return f"{{ {_address(name)}; size {size}; {_DYNAMIC} }}"
    if purpose.rstrip("6") == SetPurpose.RESERVED_BY.value:
        address = _address(name)
        return f"{{ {address} . {address.removeprefix('typeof ')} . iifname; }}"
    if purpose.rstrip("6") in _SEGMENT_SETS:
        return f"{{ {_address(name)}{_SEGMENT_SETS[purpose.rstrip('6')]} }}"
    if kind_of(name) == "map":
        return f"{{ typeof oifname : @nh,96,32; size {_NEWEST_SIZE}; {_DYNAMIC} }}"
    if purpose == SetPurpose.LEASED.value:
        return f"{{ type ifname; size 1; {_DYNAMIC} }}"
    if purpose == SetPurpose.MACS.value:
        return f"{{ type ether_addr; size {name.rpartition('-')[2]}; {_DYNAMIC} timeout {TIMEOUT_S // DAY_S}d; }}"
    if purpose == SetPurpose.UNREAD.value:
        return f"{{ {_address(name)}; size 8; {_DYNAMIC} timeout {DAY_S}s; }}"
    version = "ipv6_addr" if purpose.endswith("6") else "ipv4_addr"
    if purpose.startswith(SetPurpose.CONNLIMIT.value):
        return f"{{ type {version}; size {MAX_SOURCES}; flags dynamic; }}"
    return f"{{ type {' . '.join([version] * dimensions)}; flags interval; }}"


def _address(name: str) -> str:
    """The type of an address as a number, of IPv6 if the name of the set says so."""
    return f"typeof @nh,64,{128 if name.split('/')[0].endswith('6') else 32}"


_SEGMENT_SETS = {
    SetPurpose.SEEN.value: f"; size {_MANY}; {_DYNAMIC} timeout {SEEN_S}s;",
    SetPurpose.TAKEN.value: f"; size {_MANY}; {_DYNAMIC}",
    SetPurpose.CLAIMED.value: f"; size {_MANY}; {_DYNAMIC} timeout {CLAIMED_S}s;",
    SetPurpose.SINCE.value: f" : meta time; size {_MANY}; {_DYNAMIC}",
    SetPurpose.KIN.value: f"; size {_MANY}; {_DYNAMIC}",
    SetPurpose.RESERVED.value: ";",
    SetPurpose.RESERVED_NETS.value: "; flags interval;",
}
"""By purpose, what follows the type of an address. RESERVED_BY has another, see `declaration`."""


def kind_of(name: str) -> str:
    """ "set" or "map"."""
    purpose, *parts = name.split("/")
    is_lease_map = purpose == SetPurpose.LEASED.value and parts[1:] == [_ADDRESS]
    return "map" if is_lease_map or purpose.rstrip("6") == SetPurpose.SINCE.value else "set"


def is_remembered(name: str) -> bool:
    """Whether a re-apply keeps its elements (all but what counts connections, which the kernel fills anew)."""
    return not counts_connections(name)


def counts_connections(name: str) -> bool:
    """Whether the set is one that counts the connections of sources."""
    return name.startswith(SetPurpose.CONNLIMIT.value)


def initial_elements(ruleset: Ruleset) -> Iterator[tuple[str, str]]:
    """(set, element) for what is there from the beginning."""
    for named in ruleset.sets:
        name = set_name(ruleset.tap, named)
        learned = parse_learned(name)
        for value in named.initial:
            assert learned is not None
            yield name, learned.element(value)


# --- in rules ---------------------------------------------------------------------------------------------------------


def interface_field(stage: Stage, attachment: Attachment) -> str:
    """What nft calls the tap, seen from the hook of this stage: what a macvtap's guest sends goes out by it."""
    sends = stage in (Stage.FROM_L2, Stage.FROM_L3)
    return "oifname" if sends is (attachment is Attachment.MACVTAP) else "iifname"


def store(tap: str, field: str, named: NamedSet) -> str:
    """The statement that puts a field into a set; if its day is to begin anew whenever it comes again, it does."""
    operation = "update" if named.purpose is SetPurpose.UNREAD else "add"
    return f"{operation} @{set_name(tap, named)} {{ {field} }}"


def spelled(element: Any) -> str:
    """An element of a set, as `nft -j` lists it, in one word."""
    if isinstance(element, dict):
        if "prefix" in element:
            return f"{element['prefix']['addr']}/{element['prefix']['len']}"
        if "range" in element:
            return "-".join(element["range"])
        if "concat" in element:
            return ",".join(spelled(part) for part in element["concat"])
    return str(element)
