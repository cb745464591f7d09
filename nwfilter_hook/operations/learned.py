"""
Learned addresses changed by hand: forgotten, or given by someone who knows them.

In:  a `Host`, a tap that is under filter, addresses as text.
Out: the elements of the tap's sets (render_sets); no rule and no record changes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Union

from ..base.addresses import link_local, parse_mac
from ..base.errors import NwfilterHookError
from ..host import Host
from ..nftables.script import TABLE, Script
from ..nftables.sets import LearnedName, kind_of, lease_map, parse_learned
from ..ruleset.model import Purpose
from ..storage.records import Binding

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
_FORGOTTEN = (Purpose.LEARNED.value, f"{Purpose.LEARNED.value}6", Purpose.LEASED.value, Purpose.UNREAD.value)


def forget(host: Host, tap: str) -> None:
    """
    Forget every address learned for `tap`, IPv4 and IPv6: it learns as a guest that has just started.

    Raises:
        NwfilterHookError: no such tap, or nothing is learned for it.
    """
    with host.state.locked():
        binding = _binding(host, tap)
        _apply(host, binding, _forget(binding, (4, 6)))


def teach(host: Host, tap: str, texts: Sequence[str]) -> tuple[Address, ...]:
    """
    Make `texts` the learned addresses of `tap`, in place of what was learned before in their family.

    Returns:
        The addresses.

    Raises:
        NwfilterHookError: no such tap, nothing is learned for it, more addresses than it may learn, or a text is no
            address that a host can have.
    """
    addresses = tuple(dict.fromkeys(_address(text) for text in texts))
    with host.state.locked():
        binding = _binding(host, tap)
        sets = _learned(binding)
        versions = sorted({address.version for address in addresses})
        for version in versions:
            mine = [each for each in sets if each.version == version]
            if not mine:
                raise NwfilterHookError(
                    f"{tap}: no IPv{version} address is learned for it; its filter is {binding.filter}"
                )
            number = sum(address.version == version for address in addresses)
            if number > mine[0].size:
                raise NwfilterHookError(f"{tap}: {number} IPv{version} addresses, but it may have {mine[0].size}")
        _apply(host, binding, [*_forget(binding, versions), *_teach(binding, addresses)])
    return addresses


def _binding(host: Host, tap: str) -> Binding:
    found = [binding for record in host.state.records() for binding in record.bindings if binding.tap == tap]
    if not found:
        raise NwfilterHookError(f"no tap {tap!r} is under filter")
    if not _learned(found[0]):
        raise NwfilterHookError(f"{tap}: no address is learned for it; its filter is {found[0].filter}")
    return found[0]


def _learned(binding: Binding) -> list[LearnedName]:
    return [learned for learned in map(parse_learned, binding.objects.sets) if learned]


def _forget(binding: Binding, versions: Iterable[int]) -> Iterator[str]:
    for name in binding.objects.sets:
        purpose = name.split("/")[0]
        if purpose not in _FORGOTTEN or (6 if purpose.endswith("6") else 4) not in versions:
            continue
        yield f"flush {kind_of(name)} {{where}} {name}"
        learned = parse_learned(name)
        if learned and learned.version == 6:
            yield _element(learned, link_local(parse_mac(binding.mac)))


def _teach(binding: Binding, addresses: Sequence[Address]) -> Iterator[str]:
    for learned in _learned(binding):
        for address in addresses:
            if address.version == learned.version:
                yield _element(learned, int(address))
    leased = f"{Purpose.LEASED.value}/{binding.tap}"
    lease = [address for address in addresses if address.version == 4]
    if leased in binding.objects.sets and lease:
        yield f'add element {{where}} {leased} {{{{ "{binding.tap}" }}}}'
        if lease_map(binding.tap) in binding.objects.sets:
            yield f'add element {{where}} {lease_map(binding.tap)} {{{{ "{binding.tap}" : {int(lease[0]):#x} }}}}'


def _element(learned: LearnedName, address: int) -> str:
    return f"add element {{where}} {learned.name} {{{{ {learned.element(address)} }}}}"


def _apply(host: Host, binding: Binding, statements: Iterable[str]) -> None:
    where = f"{binding.objects.family} {TABLE}"
    text = "".join(f"{statement.format(where=where)}\n" for statement in statements)
    host.nft.apply_script(Script(text, {}, {}))


def _address(text: str) -> Address:
    try:
        if "%" in text:
            raise ValueError
        address = ipaddress.ip_address(text)
    except ValueError:
        raise NwfilterHookError(f"{text!r} is not an IP address") from None
    if address.is_multicast or address.is_unspecified or (address.version == 4 and int(address) >> 28 == 15):
        raise NwfilterHookError(f"{text}: no host can have this address")
    return address
