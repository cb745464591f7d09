"""
A filter as libvirt's own driver enforces it, in our words: for comparing verdicts before a host is taken over.

In:  a `Filter`, read from the XML that libvirt gives (so what it ignores isn't in it).
Out: a `Filter` that means to us what the first means to libvirt, as far as nwfilter-differences(7) says; numbers are
     that page's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..base.dataclass import replace
from .model import Direction, Filter, FilterRef, FilterRule, Setting, Variable
from .protocols import CHAIN_PRIORITIES, ELEMENTS

END_OF_CHAIN = "accept"
"""12: ebtables gives sub-chains that policy."""
_MACS_IGNORED = ("srcmacmask", "dstmacaddr", "dstmacmask")
_MACS_IGNORED_ON = ("udplite", "esp", "ah", "icmp", "igmp", "all")


def as_libvirt(definition: Filter) -> Filter:
    """The filter that is enforced."""
    priority = definition.priority
    if definition.chain.startswith("stp") and priority == CHAIN_PRIORITIES["stp"]:
        priority = 0  # 3
    return replace(definition, priority=priority, entries=tuple(_entries(definition)))


def _entries(definition: Filter) -> Iterator[FilterRule | FilterRef]:
    for entry in definition.entries:
        if isinstance(entry, FilterRef) or entry.element is None:
            yield entry
        elif entry.element == "igmp-ipv6":
            yield replace(entry, element=None, settings={})  # 5
        elif not _is_left_out(entry):
            yield replace(entry, settings=dict(_settings(entry.element, entry.settings)))


def _is_left_out(rule: FilterRule) -> bool:
    """No rule is made of it: 4, and a TOS octet that no code point makes (2)."""
    if rule.element in ("icmp", "icmpv6") and "type" in rule.settings and rule.direction is Direction.INOUT:
        return True
    dscp = rule.settings.get("dscp")
    octet = dscp.value if dscp and rule.element == "ip" and not dscp.negated else 0
    return isinstance(octet, int) and octet % 4 != 0


def _settings(element: str, settings: Mapping[str, Setting]) -> Iterator[tuple[str, Setting]]:
    layer = ELEMENTS[element].layer
    source_port = settings.get("srcportstart")
    for name, setting in settings.items():
        if name in ("ipset", "ipsetflags") and not element.startswith("all") and "ipsetflags" in settings:
            continue  # 2
        if name == "flags" and element == "tcp-ipv6":
            continue  # 2
        if name in _MACS_IGNORED and element.removesuffix("-ipv6") in _MACS_IGNORED_ON and layer == 3:
            continue  # 5
        if name == "arpdstipmask":
            continue  # 2, below
        if name == "dscp" and element == "ip" and isinstance(setting.value, int):
            setting = Setting(setting.value >> 2, setting.negated, setting.source)
        elif name in ("dstportstart", "dstportend") and layer == 3:
            setting = replace(setting, negated=source_port.negated if source_port else False)
        yield name, setting
    mask = settings.get("arpsrcipmask")
    if mask is not None and "arpdstipaddr" in settings and not isinstance(mask.value, Variable):
        yield "arpdstipmask", replace(mask, negated=settings["arpdstipaddr"].negated)
