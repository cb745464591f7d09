"""
What a guest's filters are, as a digest: its whole filter trees and parameters, the same on two hosts if these are.

In:  a `Host`; a guest's record, or its domain XML.
Out: a `GuestDigest`; with what the host has beside it, a `HostDigest`, which a host elsewhere compares (migration.py).

Taps have other names elsewhere, so interfaces are told by MAC. A filter's digest is that of its normal form, without
UUID and comments.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from .. import __version__
from ..base.dataclass import as_dict, dataclass, replace
from ..base.errors import NOWHERE, NwfilterHookError
from ..config import Default
from ..domain.model import Carrier, Domain
from ..filters.format import format_filter
from ..filters.model import Filter, FilterRule, Variable
from ..host import Host
from ..storage.records import Record
from .address_sets import list_set
from .catalogue import tree_of
from .compile import check_domain
from .floors import describe, floor_below

FORMAT = 1


@dataclass(frozen=True)
class InterfaceDigest:
    """
    Attributes:
        filters: digests of all filters of the tree, the floor's too, by name.
        floor: FILTER NAME=VALUE …; "" for none.
        by_default: whether the configuration names the filter, not the guest.
        needs: what the rules need of the kernel, as far as that is known: of a guest that runs.
        sets: of the administrator's sets that rules name, a digest of what is in them; "" for one that isn't there.
    """

    mac: str
    filter: str
    parameters: Mapping[str, tuple[str, ...]]
    floor: str
    by_default: bool
    filters: Mapping[str, str]
    needs: tuple[str, ...]
    sets: Mapping[str, str]


@dataclass(frozen=True)
class GuestDigest:
    """`digest` is of all interfaces' filters and parameters."""

    guest: str
    uuid: str
    digest: str
    interfaces: tuple[InterfaceDigest, ...]


@dataclass(frozen=True)
class HostDigest:
    """
    Attributes:
        abilities: of the kernel, by name.
        configuration: keys that change what a filter means.
        filters: digests of the library's filters by name; "" for one that can't be read.
        sets: digests of the administrator's sets that filters of the library name.
    """

    format: int
    version: str
    host: str
    abilities: Mapping[str, bool]
    configuration: Mapping[str, Any]
    filters: Mapping[str, str]
    sets: Mapping[str, str]
    guests: tuple[GuestDigest, ...]

    def as_json(self) -> dict[str, Any]:
        """For a file, and for `check-migration` elsewhere."""
        found: dict[str, Any] = as_dict(self)
        return found


def digest_record(host: Host, record: Record) -> GuestDigest:
    """Of a guest that runs. Raises InputError: a filter isn't there any more, or is wrong."""
    interfaces = [
        _interface(
            host,
            binding.mac,
            binding.filter,
            binding.parameters,
            binding.floor,
            by_default=binding.carrier == Carrier.DEFAULT.value,
            needs=host.backend.needs(binding.installed),
        )
        for binding in record.bindings
    ]
    return _guest(record.guest, record.uuid, interfaces)


def digest_domain(host: Host, domain: Domain) -> GuestDigest:
    """Of a guest that doesn't run. Raises InputError, MissingFeature: its filters can't be made here."""
    check_domain(host, domain)
    interfaces = [
        _interface(
            host,
            each.mac,
            each.reference.filter,
            each.reference.parameters,
            describe(floor_below(host, each.bridge, each.reference)),
            by_default=each.carrier is Carrier.DEFAULT,
            needs=(),
        )
        for each in domain.interfaces
        if each.reference
    ]
    return _guest(domain.name, domain.uuid, interfaces)


def digest_host(host: Host, guests: Iterable[GuestDigest]) -> HostDigest:
    """This host, with these guests. Raises NftError: the kernel can't be asked."""
    filters, named = {}, set[str]()
    for name in host.library.names():
        try:
            definition = host.library.read(name, NOWHERE)
            filters[name] = _of_filter(definition)
            named |= set(_sets_of(definition, {}))
        except NwfilterHookError:
            filters[name] = ""
    found = tuple(guests)
    named |= {name for guest in found for each in guest.interfaces for name in each.sets}
    config = host.config
    return HostDigest(
        format=FORMAT,
        version=__version__,
        host=socket.gethostname(),
        abilities=host.backend.abilities(),
        configuration={
            "end_of_chain": config.end_of_chain,
            "connections": config.connections,
            "never": [list(each) for each in config.never],
            "defaults": [_of_default(each) for each in config.defaults],
            "floors": [_of_default(each) for each in config.floors],
        },
        filters=filters,
        sets={name: _of_set(host, name) for name in sorted(named)},
        guests=found,
    )


def _of_default(default: Default) -> str:
    words = (f"{name}={value}" for name, value in default.parameters)
    return " ".join((f"{default.kind}.{default.pattern}", "=", default.filter, *words))


def _guest(name: str, uuid: str, interfaces: list[InterfaceDigest]) -> GuestDigest:
    told = [[each.mac, each.filter, as_dict(each.parameters), each.floor, as_dict(each.filters)] for each in interfaces]
    return GuestDigest(name, uuid, _sha(json.dumps(sorted(told, key=json.dumps), sort_keys=True)), tuple(interfaces))


def _interface(
    host: Host,
    mac: str,
    name: str,
    parameters: Mapping[str, tuple[str, ...]],
    floor: str,
    *,
    by_default: bool,
    needs: tuple[str, ...],
) -> InterfaceDigest:
    trees = [(name, parameters)]
    if floor:
        trees.append((floor.partition(" ")[0], {}))
    filters: dict[str, str] = {}
    sets: dict[str, str] = {}
    for root, given in trees:
        for each in sorted(tree_of(host.library, root)):
            definition = host.library.read(each, NOWHERE)
            filters[each] = _of_filter(definition)
            sets.update({named: _of_set(host, named) for named in _sets_of(definition, given)})
    return InterfaceDigest(mac, name, parameters, floor, by_default, filters, needs, sets)


def _of_filter(definition: Filter) -> str:
    return _sha(format_filter(replace(definition, uuid=None, comments=())))


def _sets_of(definition: Filter, parameters: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Names of the administrator's sets, those that parameters name too."""
    found: list[str] = []
    for entry in definition.entries:
        setting = entry.settings.get("ipset") if isinstance(entry, FilterRule) else None
        if setting is not None and isinstance(setting.value, Variable):
            found += parameters.get(setting.value.name, ())
        elif setting is not None:
            found.append(str(setting.value))
    return found


def _of_set(host: Host, name: str) -> str:
    try:
        return _sha("\n".join(sorted(list_set(host, name))))
    except NwfilterHookError:
        return ""


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
