"""
Where a tap is among others, and which addresses are somebody's there.

In:  what a record will say of a tap; the host's configuration and addresses.
Out: a `Segment`, by which a tap learns no address that is another's.

An address that was given to any tap, by whatever filter, is that tap's on its bridge, and so is what it has besides
learned ones, and the link-local address of its MAC. The host's own on the bridge are looked up whenever a tap that
learns is put into force.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ..base.addresses import link_local, parse_mac
from ..base.dataclass import replace
from ..config import Config
from ..filters.learning import FIXED
from ..filters.model import Prefix
from ..filters.values import parse_prefix
from ..network.addresses import Address, addresses_of
from ..network.links import open_route
from ..ruleset.fields import ValueType
from ..ruleset.model import AddressRange, Attachment, Ruleset, Segment, SetPurpose
from ..storage.records import Binding

_KINDS = {4: ValueType.IPV4, 6: ValueType.IPV6}
_VERSIONS = {"IP": 4, "IPV6": 6}


def segment_of(binding: Binding, uuid: str = "") -> Segment:
    """Where the tap is, with what its parameters give it; `uuid`: of its guest, "" where that doesn't matter."""
    return Segment(_name(binding), tuple(dict.fromkeys(_given(binding))), guest=uuid.replace("-", ""))


def with_hosts_own(ruleset: Ruleset, binding: Binding, config: Config) -> Ruleset:
    """
    The ruleset, if it learns; its segment with what nobody learns: the host's addresses there, those that the
    configuration names, and the guest's own link-local one.
    """
    kinds = {named.kind for named in ruleset.sets if named.purpose is SetPurpose.LEARNED}
    if not kinds:
        return ruleset
    hosts = tuple(each for each in never_learned(ruleset.segment.name, config) if each.kind in kinds)
    own = ruleset.segment.own + (tuple(_own_link_local(binding)) if ValueType.IPV6 in kinds else ())
    return replace(ruleset, segment=replace(ruleset.segment, own=tuple(dict.fromkeys(own)), hosts=hosts))


def never_learned(segment: str, config: Config) -> tuple[AddressRange, ...]:
    """The addresses that no tap of the segment learns, whoever else has them: see `with_hosts_own`."""
    never = [AddressRange(_KINDS[version], low, high) for version, low, high in config.never]
    return tuple(dict.fromkeys([*never, *(_hosts_own(segment) if segment else ())]))


def holds(ranges: Iterable[AddressRange], address: Address) -> bool:
    """Whether the address is in one of the ranges."""
    return any(each.holds(_KINDS[address.version], int(address)) for each in ranges)


def _name(binding: Binding) -> str:
    """The bridge; of a macvtap the device below it, which its neighbours share."""
    if binding.attachment is not Attachment.MACVTAP:
        return binding.bridge or ""
    try:
        devices = os.listdir(f"/sys/class/net/{binding.tap}")
    except OSError:
        return ""
    return next((name.removeprefix("lower_") for name in devices if name.startswith("lower_")), "")


def _given(binding: Binding) -> Iterator[AddressRange]:
    """What the parameters give; one that is no address is an error where a rule uses it, and here nothing."""
    for variable, version in _VERSIONS.items():
        for text in (*binding.parameters.get(variable, ()), *binding.parameters.get(FIXED[variable], ())):
            try:
                value = parse_prefix(text, version)
            except ValueError:
                continue
            yield _range(value, version)
    if "IPV6" in binding.parameters:
        yield from _own_link_local(binding)


def _range(value: int | Prefix, version: int) -> AddressRange:
    if isinstance(value, Prefix):
        every = (1 << (32 if version == 4 else 128)) - 1
        return AddressRange(_KINDS[version], value.address, value.address | every ^ value.mask)
    return AddressRange(_KINDS[version], value, value)


def _own_link_local(binding: Binding) -> Iterable[AddressRange]:
    return [_range(link_local(parse_mac(binding.mac)), 6)] if binding.mac else []


def _hosts_own(device: str) -> list[AddressRange]:
    """What can't be asked for isn't kept from anybody: the tap is filtered all the same."""
    try:
        with open_route() as route:
            return [_range(int(address), address.version) for address in addresses_of(route, device)]
    except OSError:
        return []
