"""
Verdicts that change when a guest comes from libvirt's rules to ours, told before anything is done.

In:  what adopt's survey has found.
Out: a line for each guest's interface and kind of difference.

Frames are made from the guest's own filters: one for each rule, of both readings, and some that no rule names. Each is
judged by our rules and by libvirt's, both as the evaluator has them: filters/as_libvirt.py says what libvirt makes of a
filter. What isn't seen so (learned addresses, sets, counted connections) is in nwfilter-differences(7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..base.addresses import parse_ipv4, parse_ipv6, parse_mac
from ..base.dataclass import replace
from ..base.errors import NwfilterHookError
from ..filters.as_libvirt import END_OF_CHAIN, as_libvirt
from ..filters.model import FilterRef
from ..host import Host
from ..packets.probe import frame_of, values_of
from ..ruleset.evaluate import Context, Evaluation, State, Way, evaluate
from ..ruleset.fields import Field
from ..ruleset.model import Attachment, Ruleset
from ..storage.library import Library
from .adopt_survey import Survey
from .compile import compile_reference
from .floors import read_domain

MAX_LINES = 20
_ENDS = ((Field.ETHER_SRC, Field.ETHER_DST), (Field.IP_SRC, Field.IP_DST), (Field.IP6_SRC, Field.IP6_DST))
_PEER_MAC = 0x020000000001
_ADDRESSES = ((parse_ipv4, "192.0.2.7", "198.51.100.9"), (parse_ipv6, "2001:db8::7", "2001:db8:9::9"))
_LLDP = {Field.ETHER_DST: 0x0180C200000E, Field.ETHER_TYPE: 0x88CC}
_OTHERS: tuple[dict[Field, int], ...] = (
    *({Field.ETHER_TYPE: number} for number in (0x0800, 0x86DD, 0x0806, 0x8035, 0x88CC)),
    *({Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: number} for number in (1, 2, 6, 17, 50)),
    {Field.ETHER_TYPE: 0x0800, Field.ETHER_SRC: 0x020000000002},
    {Field.ETHER_TYPE: 0x0800, Field.IP_SRC: 0xCB007109},
    {Field.ETHER_TYPE: 0x0806, Field.ARP_SRC_IP: 0xCB007109},
    _LLDP,
)
_RESERVED = b"\x01\x80\xc2\x00\x00"
_NEVER_RESERVED = (b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x80\x35")
"""No such packet goes to an address that bridges take for themselves; ours drop them (19)."""
_STATES = (Context(State.NEW), Context(State.ESTABLISHED), Context(State.ESTABLISHED, reply=True))
_PLAIN = (Context(State.UNTRACKED),)


def differing(host: Host, found: Survey) -> Iterator[str]:
    """Lines, by guest; once for guests whose filters and parameters are the same."""
    library = host.library
    for definition in found.bring:
        library = library.with_filter(definition)
    theirs = library
    for name in found.used & set(found.filters):
        theirs = theirs.with_filter(as_libvirt(found.filters[name]))
    said: dict[tuple[str, ...], list[str]] = {}
    for guest in found.guests:
        try:
            domain = read_domain(host, guest.xml, guest.name, tolerant=True)
        except NwfilterHookError:
            continue
        for interface in domain.interfaces:
            if interface.reference and interface.reference.filter in found.filters and interface.type != "direct":
                reference = interface.reference
                lines = tuple(_differences(host, library, theirs, reference, interface.mac))
                if lines:
                    said.setdefault(lines, []).append(f"{guest.name}, {interface.tap or interface.mac}")
    for lines, whose in said.items():
        names = "; ".join(whose[:5]) + (f" and {len(whose) - 5} more" if len(whose) > 5 else "")
        yield from (f"{names}: {line}" for line in lines)


def _differences(host: Host, ours: Library, theirs: Library, reference: FilterRef, mac: str) -> Iterator[str]:
    try:
        here = compile_reference(
            reference, "tap", Attachment.BRIDGE_PORT, mac, ours, end_of_chain=host.config.end_of_chain
        )
        there = compile_reference(
            reference, "tap", Attachment.BRIDGE_PORT, mac, theirs, end_of_chain=END_OF_CHAIN, ingress=False
        )
    except NwfilterHookError:
        return
    seen: set[tuple[str, str, bool]] = set()
    for way in Way:
        for values in _probes((here, there), way):
            frame = frame_of(values, _defaults(reference, mac, way))
            reserved = way is Way.FROM_GUEST and frame[:5] == _RESERVED
            if reserved and frame[12:14] in _NEVER_RESERVED:
                continue
            for context in _STATES if frame[12:14] in (b"\x08\x00", b"\x86\xdd") else _PLAIN:
                mine, other = evaluate(here, frame, way, context), evaluate(there, frame, way, context)
                passes_there = other.passes or reserved
                key = (_by(mine), _by(other), mine.passes)
                if mine.passes is not passes_there and key not in seen and len(seen) < MAX_LINES:
                    seen.add(key)
                    yield _line(frame, way, context, mine, other, passes_there)


def _probes(rulesets: Iterable[Ruleset], way: Way) -> Iterator[dict[Field, int]]:
    """For each rule a frame that meets it, and for each of its conditions one that meets all others."""
    for ruleset in rulesets:
        for chain in ruleset.chains:
            if chain.stage in way.value:
                for rule in chain.rules:
                    yield values_of(rule.matches)
                    for match in rule.matches:
                        others = (each for each in rule.matches if each is not match)
                        yield values_of([*others, replace(match, negated=not match.negated)])
    yield from _OTHERS


def _defaults(reference: FilterRef, mac: str, way: Way) -> dict[Field, int]:
    """The guest's own addresses, as far as parameters say them, and a peer's."""
    own, peer = parse_mac(mac), _PEER_MAC
    found = {Field.ETHER_SRC: own, Field.ETHER_DST: peer}
    given = [value for name in ("IP", "IPV6") for value in reference.parameters.get(name, ())]
    for (parse, default, other), fields in zip(_ADDRESSES, _ENDS[1:]):
        addresses = []
        for text in [*given, default]:
            try:
                addresses.append(parse(text))
            except ValueError:
                continue
        found[fields[0]], found[fields[1]] = addresses[0], parse(other)
    if way is Way.TO_GUEST:
        for one, two in (
            (Field.ETHER_SRC, Field.ETHER_DST),
            (Field.IP_SRC, Field.IP_DST),
            (Field.IP6_SRC, Field.IP6_DST),
        ):
            found[one], found[two] = found[two], found[one]
    return found


def _by(evaluation: Evaluation) -> str:
    rule = evaluation.layers[-1].decided_by if evaluation.layers else None
    return replace(rule.source, kept=None).path + f":{rule.source.line}" if rule else "the end of the rules"


def _line(frame: bytes, way: Way, context: Context, mine: Evaluation, other: Evaluation, passes_there: bool) -> str:
    verdicts = {True: "passes", False: "is dropped"}
    what = "what it sends" if way is Way.FROM_GUEST else "what it gets"
    state = f", {context.state.value}" if context.state is not State.UNTRACKED else ""
    there = f"{verdicts[passes_there]} under libvirt ({_by(other)})"
    here = f"{verdicts[mine.passes]} here ({_by(mine)})"
    return f"{what}, {_described(frame)}{state}: {there}, {here}"


def _described(frame: bytes) -> str:
    """Type and addresses, protocol and ports, of a frame that has no options and no tags but one."""
    number = int.from_bytes(frame[12:14], "big")
    source, target = frame[6:12].hex(":"), frame[:6].hex(":")
    if number == 0x0800:
        ports = int.from_bytes(frame[34:36], "big"), int.from_bytes(frame[36:38], "big")
        detail = {6: f" ports {ports[0]} {ports[1]}", 17: f" ports {ports[0]} {ports[1]}", 1: f" type {frame[34]}"}
        ends = f"{'.'.join(map(str, frame[26:30]))} to {'.'.join(map(str, frame[30:34]))}"
        return f"IPv4 from {ends}, protocol {frame[23]}{detail.get(frame[23], '')}"
    if number == 0x86DD:
        return f"IPv6, next header {frame[20]}"
    if number in (0x0806, 0x8035):
        name = "ARP" if number == 0x0806 else "RARP"
        return f"{name} of {'.'.join(map(str, frame[28:32]))} for {'.'.join(map(str, frame[38:42]))}"
    kind = f"EtherType {number:#06x}" if number >= 0x600 else "802.3"
    return f"{kind} from {source} to {target}"
