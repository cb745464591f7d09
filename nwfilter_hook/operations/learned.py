"""
Learned addresses changed by hand: forgotten, or given by someone who knows them.

In:  a `Host`, a tap that is under filter, addresses as text.
Out: what the kernel has learned is changed; no rule and no record is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Union

from ..base.errors import NwfilterHookError
from ..host import Host
from ..storage.records import Binding
from .bindings import all_bindings, find_binding
from .segments import holds, never_learned, segment_of

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


def forget(host: Host, tap: str) -> None:
    """
    Forget every address learned for `tap`, IPv4, IPv6 and MAC: it learns as a guest that has just started.

    Raises:
        NwfilterHookError: no such tap, or nothing is learned for it.
    """
    with host.state.locked():
        installed = _learning(host, tap).installed
        host.backend.set_learned(installed, host.backend.learnable(installed), ())


def teach(host: Host, tap: str, texts: Sequence[str]) -> tuple[Address, ...]:
    """
    Make `texts` the learned addresses of `tap`, in place of what was learned before in their family.

    Returns:
        The addresses.

    Raises:
        NwfilterHookError: no such tap, nothing is learned for it, more addresses than it may learn, a text is no
            address that a host can have, or the address is somebody else's on the same bridge.
    """
    addresses = tuple(dict.fromkeys(_address(text) for text in texts))
    with host.state.locked():
        binding = _learning(host, tap)
        bounds = host.backend.learnable(binding.installed)
        versions = sorted({address.version for address in addresses})
        for version in versions:
            if version not in bounds:
                raise NwfilterHookError(
                    f"{tap}: no IPv{version} address is learned for it; its filter is {binding.filter}"
                )
            number = sum(address.version == version for address in addresses)
            if number > bounds[version]:
                raise NwfilterHookError(f"{tap}: {number} IPv{version} addresses, but it may have {bounds[version]}")
        _refuse_others(host, binding, addresses)
        host.backend.set_learned(binding.installed, versions, [str(address) for address in addresses])
    return addresses


def _learning(host: Host, tap: str) -> Binding:
    _, binding = find_binding(host, tap)
    if not host.backend.learnable(binding.installed):
        raise NwfilterHookError(f"{tap}: no address is learned for it; its filter is {binding.filter}")
    return binding


def _refuse_others(host: Host, binding: Binding, addresses: Sequence[Address]) -> None:
    """Who is first has an address; the administrator is told who it is."""
    segment = segment_of(binding).name
    nobodys = never_learned(segment, host.config)
    for address in addresses:
        if holds(nobodys, address):
            raise NwfilterHookError(f"{address}: the host has it, or [learning] never in the configuration names it")
    for record, other in all_bindings(host):
        if not segment or other.tap == binding.tap or segment_of(other).name != segment:
            continue
        learned = host.backend.look([other.installed])[other.tap].learned
        for address in addresses:
            who = f"{other.tap}, of guest {record.guest}"
            if holds(segment_of(other).own, address):
                raise NwfilterHookError(f"{address} was given to {who}, on the same bridge")
            if str(address) in {each.address for each in learned}:
                raise NwfilterHookError(f"{address} is learned by {who}; nwfilter-hook relearn {other.tap} frees it")


def _address(text: str) -> Address:
    try:
        if "%" in text:
            raise ValueError
        address = ipaddress.ip_address(text)
    except ValueError:
        raise NwfilterHookError(f"{text!r} is not an IP address") from None
    reserved = address.version == 4 and int(address) >> 28 == 15
    if address.is_multicast or address.is_unspecified or address.is_loopback or reserved:
        raise NwfilterHookError(f"{text}: no host can have this address")
    return address
