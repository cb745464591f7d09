"""
What a start should tell the administrator though nothing is wrong with it.

In:  a guest and the filter library.
Out: (tap, line) for each thing to tell, once per interface.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from ..base.addresses import is_link_local, link_local, parse_mac
from ..domain.model import Domain
from ..filters.model import FilterRef
from ..filters.resolve import resolve
from ..storage.library import Library


def advice(domain: Domain, library: Library) -> Iterator[tuple[str, str]]:
    """
    An interface whose IPv6 addresses are given, but no link-local one: the guest has the one of its MAC, and a guest
    that makes its own otherwise (RFC 7217) could wonder why it has no IPv6.
    """
    for interface in domain.interfaces:
        reference = interface.reference
        if reference is None or not _leaves_link_local_out(reference):
            continue
        own = link_local(parse_mac(interface.mac))
        rules = resolve(reference, interface.mac, library.read)
        if any(condition.value == own for rule in rules for condition in rule.conditions.values()):
            address = ipaddress.IPv6Address(own)
            line = (
                f"of link-local addresses the guest has {address} only, that of its MAC; if it makes another "
                "(RFC 7217: Windows, NetworkManager), give it as parameter LINK_LOCAL"
            )
            yield interface.tap or "(no tap)", line


def _leaves_link_local_out(reference: FilterRef) -> bool:
    given = reference.parameters
    own_rules = "LINK_LOCAL" not in given and "MAC" not in given
    return own_rules and "IPV6" in given and not any(map(is_link_local, given["IPV6"]))
