"""
What `explain` explains: a filter as it would be, or a tap as it is.

In:  a `Host`; a reference to a filter, or the name of a tap.
Out: a `Subject`: the ruleset, the guest, what is in its sets, and each rule's line.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from ..base.addresses import is_tap_name, parse_mac
from ..base.dataclass import dataclass
from ..base.errors import NwfilterHookError
from ..base.text import one_line, shortened
from ..filters.model import FilterRef
from ..host import Host
from ..packets.words import Guest
from ..ruleset.evaluate import SetElement, Way
from ..ruleset.fields import ValueType
from ..ruleset.frame import Frame, decode_frame
from ..ruleset.model import Attachment, NamedSet, Rule, Ruleset, SetPurpose
from ..storage.library import Library
from ..storage.records import Binding, Record
from .address_sets import parse_element
from .compile import compile_reference, recorded_ruleset

_LONGEST_RULE = 40
"""Lines of a file that can be one rule."""

Sets = Mapping[NamedSet, "frozenset[SetElement]"]


@dataclass(frozen=True)
class Subject:
    """
    What a frame is held against.

    Attributes:
        name: "tap vnet0", "filter clean-traffic".
        sets: what is in them.
        notes: what a person should know about the answer.
    """

    name: str
    ruleset: Ruleset
    guest: Guest
    sets: Sets
    library: Library
    notes: tuple[str, ...] = ()

    def line_of(self, rule: Rule) -> str:
        """The rule's XML in one line; "" if it stands in no file."""
        if not rule.source.line:
            return ""
        try:
            lines = self.library.data_of(rule.source.path).decode(errors="replace").splitlines()
        except (OSError, NwfilterHookError):
            return ""
        return _element_at(lines, rule.source.kept or rule.source.line)


def of_filter(
    host: Host,
    reference: FilterRef,
    mac: str,
    library: Library,
    *,
    tap: str = "tap",
    attachment: Attachment = Attachment.BRIDGE_PORT,
    learned: Iterable[str] = (),
    sets: Mapping[str, tuple[str, ...]] | None = None,
) -> Subject:
    """
    A filter that no tap needs to have. Asks no kernel.

    Args:
        learned: addresses and MACs that stand for what a tap would have learned.
        sets: what is in the administrator's sets, by name.

    Raises:
        InputError: it can't be compiled.
        NwfilterHookError: an element of a set is none.
    """
    ruleset = compile_reference(reference, tap, attachment, mac, library, end_of_chain=host.config.end_of_chain)
    given = dict(sets or {})
    known = {each.name for each in ruleset.sets if each.purpose is SetPurpose.IPSET}
    stray = next((name for name in given if name not in known), None)
    if stray is not None:
        raise NwfilterHookError(f"no rule looks in a set {stray!r}; there is {', '.join(sorted(known)) or 'none'}")
    contents = {
        each: elements_of(each, given.get(each.name, ())) for each in ruleset.sets if each.purpose is SetPurpose.IPSET
    }
    learned = tuple(learned)
    notes = () if not learned or can_learn(ruleset) else ("this filter learns no addresses",)
    return Subject(
        f"filter {reference.filter}",
        ruleset,
        _guest(mac, reference.parameters, learned),
        {**_learned_sets(ruleset, learned), **contents},
        library,
        (*ruleset.notes, *notes),
    )


def of_tap(host: Host, tap: str) -> Subject:
    """
    A tap under filter: its record's rules, what it has learned and its sets as the kernel has them.

    Raises:
        NwfilterHookError: there is no such tap, or its filter can't be compiled any more.
        NftError, StateError: kernel or records can't be read.
    """
    record, binding = recorded(host, tap)
    ruleset, in_force = recorded_ruleset(host, binding, record.uuid)
    notes = (
        [] if in_force else ["the filters on disk are not what is in force (nwfilter-hook reload): this is as on disk"]
    )
    if binding.quarantined:
        notes.append(f"{tap} is quarantined: its filter could not be compiled, so everything is dropped")
    seen = host.backend.look([binding.installed])[tap]
    if seen.missing:
        notes.append("not all of its rules are in the kernel (nwfilter-hook verify): this is as recorded")
    learned = tuple(each.address for each in seen.learned)
    named = [each for each in ruleset.sets if each.purpose is SetPurpose.IPSET]
    contents = {each: elements_of(each, host.backend.list_sets([each]) or ()) for each in named}
    return Subject(
        f"tap {tap} of guest {record.guest}",
        ruleset,
        _guest(binding.mac, binding.parameters, learned),
        {**_learned_sets(ruleset, learned), **contents},
        host.library,
        (*ruleset.notes, *notes),
    )


def recorded(host: Host, tap: str) -> tuple[Record, Binding]:
    """A tap's record. Raises NwfilterHookError: there is none."""
    for record in host.state.records():
        for binding in record.bindings:
            if binding.tap == tap:
                return record, binding
    hint = "" if is_tap_name(tap) else ", which can't be a tap's name"
    raise NwfilterHookError(f"nothing is installed for a tap {one_line(tap)!r}{hint}")


def decode(subject: Subject, data: bytes, way: Way) -> Frame:
    """A frame as the subject's device has it. Raises NwfilterHookError: it is none."""
    try:
        return decode_frame(data, in_tag=subject.ruleset.attachment is Attachment.MACVTAP and way is Way.FROM_GUEST)
    except ValueError as error:
        raise NwfilterHookError(str(error)) from None


def way_of(data: bytes, inbound: bool | None, mac: int) -> tuple[Way, str]:
    """Which way a frame went of which nobody says it, and how that is known; `mac` is the guest's."""
    if inbound is not None:
        return (Way.FROM_GUEST if inbound else Way.TO_GUEST), "so it was captured"
    sends = int.from_bytes(data[6:12], "big") == mac
    return (Way.FROM_GUEST if sends else Way.TO_GUEST), "by its source MAC"


def can_learn(ruleset: Ruleset) -> bool:
    """Whether the rules look at what was learned."""
    return any(each.purpose in (SetPurpose.LEARNED, SetPurpose.MACS) for each in ruleset.sets)


def elements_of(named: NamedSet, texts: Iterable[str]) -> frozenset[SetElement]:
    """Elements of one of the administrator's sets, as they are typed. Raises NwfilterHookError."""
    found = set()
    for text in texts:
        element = parse_element(named.name, text)
        if element.named.kind is named.kind and element.named.dimensions == named.dimensions:
            found.add(tuple(_span(part) for part in element.text.split(" . ")))
    return frozenset(found)


def _span(text: str) -> range:
    first, dash, last = text.partition("-")
    if dash:
        return range(int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last)) + 1)
    network = ipaddress.ip_network(text)
    return range(int(network[0]), int(network[-1]) + 1)


def _guest(mac: str, parameters: Mapping[str, tuple[str, ...]], learned: Iterable[str]) -> Guest:
    addresses = [text for name in ("IP", "IPV6") for text in parameters.get(name, ())] + list(learned)
    found: dict[int, int] = {}
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue  # a network, or a MAC
        found.setdefault(address.version, int(address))
    return Guest(parse_mac(mac), found.get(4), found.get(6))


def _learned_sets(ruleset: Ruleset, learned: Iterable[str]) -> Sets:
    """
    The sets in which what a tap has learned is looked up.

    Raises:
        NwfilterHookError: something is neither an IP address nor a MAC.
    """
    values: dict[ValueType, list[int]] = {ValueType.IPV4: [], ValueType.IPV6: [], ValueType.MAC: []}
    for text in learned:
        kind, value = _learned_value(text)
        values[kind].append(value)
    found: dict[NamedSet, frozenset[SetElement]] = {}
    for named in ruleset.sets:
        if named.purpose is SetPurpose.LEARNED or named.purpose is SetPurpose.MACS:
            mask = (1 << 128) - 1 if named.mask is None else named.mask
            members = {value & mask for value in (*named.initial, *values.get(named.kind, ()))}
            found[named] = frozenset((range(each, each + 1),) for each in members)
        elif named.purpose is SetPurpose.LEASED and values[ValueType.IPV4]:
            found[named] = frozenset([(range(0, 1),)])  # this tap has one
    return found


def _learned_value(text: str) -> tuple[ValueType, int]:
    try:
        return ValueType.MAC, parse_mac(text)
    except ValueError:
        pass
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise NwfilterHookError(f"learned: {text!r} is neither an IP address nor a MAC") from None
    return (ValueType.IPV4 if address.version == 4 else ValueType.IPV6), int(address)


def _element_at(lines: list[str], number: int) -> str:
    """The XML element that begins in this line, in one line."""
    part = lines[number - 1 : number - 1 + _LONGEST_RULE]
    if not part:
        return ""
    text = " ".join(" ".join(part).split())
    begins = re.search(r"<(rule|filterref)\b[^>]*>", text)
    if begins is None or begins.start() > len(part[0]):
        return ""
    rest = text[begins.start() :]
    if begins[0].endswith("/>"):
        return shortened(begins[0])
    end = f"</{begins[1]}>"
    return shortened(rest[: rest.index(end) + len(end)] if end in rest else begins[0])
