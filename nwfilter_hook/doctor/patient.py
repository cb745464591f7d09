"""
This host as the checks see it: each thing is read once, when a check asks for it first.

In:  a `Host` that only looks, and what was wrong with the configuration.
Out: `Patient`, whose properties raise NwfilterHookError or OSError where a thing can't be read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from ..base.dataclass import dataclass
from ..base.errors import InputError, NwfilterHookError
from ..capabilities import Capability, Survey
from ..domain.model import Domain
from ..host import Host, open_survey
from ..network.links import Link, list_links, open_route
from ..network.surroundings import is_own_table
from ..network.tables import FAMILIES, Chain, list_all_chains, list_statements, open_netfilter
from ..network.xtables import LegacyTable, list_legacy_tables
from ..operations.floors import read_domain
from ..operations.lifecycle import check
from ..operations.show import TapView, read_service, read_views
from ..operations.verify import Difference, find_differences
from ..storage.records import Record
from ..storage.watching import Watching
from .libvirt_files import DEFINED, guests_in


@dataclass(frozen=True)
class Guest:
    """
    A guest as libvirt's files have it.

    Attributes:
        domain: None if its XML can't be read.
        fault: of its XML, or of the filters that it names.
    """

    name: str
    path: str
    domain: Domain | None
    fault: NwfilterHookError | None


@dataclass(frozen=True)
class Forwarding:
    """
    A chain that packets which are forwarded meet.

    Attributes:
        closed: its policy is to drop. `drops`: it or a chain beside it drops or rejects.
        chains: names of those beside it.
    """

    family: str
    name: str
    closed: bool
    drops: bool
    chains: frozenset[str]

    @property
    def whose(self) -> str:
        """The program that made it, as far as names of chains and tables tell; "" if they don't."""
        words = (self.name, *self.chains)
        return next((who for mark, who in _MARKS.items() if any(mark in word for word in words)), "")


_MARKS = {"DOCKER": "Docker", "firewalld": "firewalld", "ufw-": "ufw", "KUBE-": "Kubernetes", "LIBVIRT_": "libvirt"}


class Patient:
    """
    See the module.

    Args:
        fault: what is wrong with the configuration, and what is gone by instead; "" if nothing is.
        said: what the host has to say while it is looked at.
    """

    def __init__(self, host: Host, fault: str, said: Sequence[str]) -> None:
        self.host = host
        self.fault = fault
        self.said = said

    @functools.cached_property
    def records(self) -> list[Record]:
        """Of guests under filter."""
        return self.host.state.records()

    @functools.cached_property
    def taps(self) -> frozenset[str]:
        """Under filter."""
        return frozenset(binding.tap for record in self.records for binding in record.bindings)

    @functools.cached_property
    def bridges(self) -> frozenset[str]:
        """That taps under filter are ports of."""
        return frozenset(each.bridge for record in self.records for each in record.bindings if each.bridge)

    @functools.cached_property
    def views(self) -> list[TapView]:
        """What `show` has."""
        return read_views(self.host)

    @functools.cached_property
    def differences(self) -> list[Difference]:
        """What `verify` finds."""
        return find_differences(self.host)

    @functools.cached_property
    def service(self) -> Watching | None:
        """What the service tells."""
        return read_service(self.host)

    @functools.cached_property
    def survey(self) -> Survey:
        """Of the back end."""
        return open_survey(self.host.config)

    @functools.cached_property
    def capabilities(self) -> tuple[Capability, ...]:
        """What this kernel can and can't do."""
        return self.survey.capabilities()

    @functools.cached_property
    def links(self) -> list[Link]:
        """Every device."""
        with open_route() as route:
            return list_links(route)

    @functools.cached_property
    def chains(self) -> list[Chain]:
        """Every chain of nftables, whoever's it is."""
        with open_netfilter() as netfilter:
            return list_all_chains(netfilter)

    @functools.cached_property
    def statements(self) -> dict[tuple[str, str], dict[str, frozenset[str]]]:
        """By family and name of a table that isn't ours, what its chains do; see network.tables.list_statements."""
        numbers = {name: number for number, name in FAMILIES.items()}
        foreign = sorted({(each.family, each.table) for each in self.chains if not is_own_table(each.table)})
        with open_netfilter() as netfilter:
            return {each: list_statements(netfilter, numbers[each[0]], each[1]) for each in foreign}

    @functools.cached_property
    def legacy(self) -> list[LegacyTable]:
        """Tables of iptables, ip6tables and ebtables in their older form."""
        return list_legacy_tables()

    def forwarding(self) -> Iterator[Forwarding]:
        """What decides about packets that are forwarded, and is nobody's but others'."""
        for each in self.chains:
            if each.hook == "forward" and each.family in ("ip", "ip6", "inet") and not is_own_table(each.table):
                inside = self.statements[each.family, each.table]
                drops = any({"drop", "reject"} & does for does in inside.values())
                others = frozenset(chain.name for chain in self.chains if chain.table == each.table)
                yield Forwarding(each.family, str(each), each.policy == "drop", drops, others)
        for table in self.legacy:
            if table.name == "filter" and table.family in ("ip", "ip6"):
                drops = "FORWARD" in table.dropping or "REJECT" in table.targets
                name = f"{table.family}tables-legacy filter FORWARD"
                yield Forwarding(table.family, name, "FORWARD" in table.policies, drops, table.chains)

    @functools.cached_property
    def running(self) -> list[Guest]:
        """Guests that run, as libvirt keeps them; none where it keeps them elsewhere."""
        found = []
        for name, path, data in guests_in(self.host.config.status_dir):
            try:
                found.append(Guest(name, path, read_domain(self.host, data, path, tolerant=True), None))
            except InputError as error:
                found.append(Guest(name, path, None, error))
        return found

    @functools.cached_property
    def defined(self) -> list[Guest]:
        """Guests that libvirt would start, each checked as it is before a start."""
        return [self._checked(name, path, data) for name, path, data in guests_in(DEFINED)]

    def _checked(self, name: str, path: str, data: bytes) -> Guest:
        domain = None
        try:
            domain = read_domain(self.host, data, path)
            check(self.host, domain)
        except NwfilterHookError as error:
            return Guest(name, path, domain, error)
        return Guest(name, path, domain, None)
