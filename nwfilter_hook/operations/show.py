"""
What is installed, for people and programs: the records beside what the kernel lists.

In:  a `Host`.
Out: a `TapView` for each tap under filter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ..base.addresses import link_local, parse_mac
from ..base.dataclass import dataclass
from ..host import Host
from ..nftables.sets import TIMEOUT_S, parse_learned
from ..ruleset.model import Purpose
from ..storage.records import Binding


@dataclass(frozen=True)
class Learned:
    """
    An address that the kernel has learned, or was given by hand.

    Attributes:
        since: in UTC, to the second; None if the kernel doesn't tell.
    """

    address: str
    since: datetime | None


@dataclass(frozen=True)
class TapView:
    """
    One tap under filter.

    Attributes:
        state: "in force", "quarantined", or "missing" (chains of the record are not in the kernel).
        learned: the addresses that the kernel has learned.
        unread: addresses in DHCP answers to the guest that taught nothing, since their type could not be read.
        dropped: packets that its drop and reject rules counted; None if they don't count.
    """

    guest: str
    uuid: str
    tap: str
    mac: str
    filter: str
    parameters: Mapping[str, tuple[str, ...]]
    attachment: str
    state: str
    learned: tuple[Learned, ...]
    unread: tuple[str, ...]
    chains: tuple[str, ...]
    dropped: int | None

    def as_json(self) -> dict[str, Any]:
        """For `show --json`; the keys are a contract."""
        return {
            "guest": self.guest,
            "uuid": self.uuid,
            "tap": self.tap,
            "mac": self.mac,
            "filter": self.filter,
            "parameters": {name: list(values) for name, values in self.parameters.items()},
            "attachment": self.attachment,
            "state": self.state,
            "learned": [each.address for each in self.learned],
            "learned_since": {each.address: each.since.isoformat() for each in self.learned if each.since},
            "unread": list(self.unread),
            "chains": list(self.chains),
            "dropped": self.dropped,
        }


def read_views(host: Host) -> list[TapView]:
    """
    Every tap under filter, by guest, taps in the order of the guest's XML.

    Raises:
        NftError: the kernel can't be asked.
    """
    records = host.state.records()
    families = sorted({binding.objects.family for record in records for binding in record.bindings})
    listings = {family: _Listing(host.nft.list_table(family)) for family in families}
    return [
        _view(record.guest, record.uuid, binding, listings[binding.objects.family])
        for record in records
        for binding in record.bindings
    ]


class _Listing:
    """Our table as nft lists it: chain names, counted drops per chain, elements per set."""

    def __init__(self, items: list[Mapping[str, Any]]) -> None:
        self.chains = set()
        self.dropped: dict[str, int] = {}
        self.elements: dict[str, tuple[Learned, ...]] = {}
        for item in items:
            if "chain" in item:
                self.chains.add(item["chain"]["name"])
            elif "set" in item:
                name, found = item["set"]["name"], item["set"].get("elem", ())
                learned = parse_learned(name)
                if learned or name.startswith(f"{Purpose.UNREAD.value}/"):
                    version = learned.version if learned else 4
                    self.elements[name] = tuple(_address(each, version) for each in found)
            elif "rule" in item:
                self._count(item["rule"])

    def _count(self, rule: Mapping[str, Any]) -> None:
        parts: dict[str, Any] = {}
        for part in rule.get("expr", ()):
            # what nft has no JSON for is text
            parts.update(part if isinstance(part, dict) else {})
        if ("drop" in parts or "reject" in parts) and isinstance(parts.get("counter"), dict):
            chain = rule["chain"]
            self.dropped[chain] = self.dropped.get(chain, 0) + int(parts["counter"]["packets"])


def _address(element: Any, version: int) -> Learned:
    """A set's element: the number ("0x…" if it is long), or an object around it with what is left of its time."""
    found = element["elem"] if isinstance(element, dict) and "elem" in element else {"val": element}
    since = None
    if "expires" in found:
        age_s = TIMEOUT_S - int(found["expires"])
        since = datetime.fromtimestamp(int(time.time()) - age_s, timezone.utc)
    number = int(str(found["val"]), 0)
    return Learned(str(IPv6Address(number) if version == 6 else IPv4Address(number)), since)


def _view(guest: str, uuid: str, binding: Binding, listing: _Listing) -> TapView:
    chains = binding.objects.chains
    counted = [listing.dropped[chain] for chain in chains if chain in listing.dropped]
    state = "quarantined" if binding.quarantined else "in force"
    if not set(chains) <= listing.chains:
        state = "missing"
    names = [parse_learned(name) for name in binding.objects.sets]
    whole = [each.name for each in names if each and each.mask is None]
    own = str(IPv6Address(link_local(parse_mac(binding.mac)))) if binding.mac else ""
    learned = (each for name in whole for each in listing.elements.get(name, ()))
    unread = listing.elements.get(f"{Purpose.UNREAD.value}/{binding.tap}", ())
    return TapView(
        guest=guest,
        uuid=uuid,
        tap=binding.tap,
        mac=binding.mac,
        filter=binding.filter,
        parameters=binding.parameters,
        attachment=binding.attachment.value,
        state=state,
        learned=tuple(each for each in learned if each.address != own),
        unread=tuple(each.address for each in unread),
        chains=chains,
        dropped=sum(counted) if counted else None,
    )


def format_learned(view: TapView) -> str:
    """For a table: "10.0.0.7 since 2026-11-23 12:00:05", in local time; "-" where nothing is learned."""
    found = [
        f"{each.address} since {each.since.astimezone():%Y-%m-%d %H:%M:%S}" if each.since else each.address
        for each in view.learned
    ]
    found += [f"DHCP answer with {address} not understood" for address in view.unread]
    return ", ".join(found) or "-"
