"""
What is installed, for people and programs: the records beside what the kernel lists.

In:  a `Host`.
Out: a `TapView` for each tap under filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .frozen import dataclass
from .host import Host
from .state import Binding


@dataclass(frozen=True)
class TapView:
    """
    One tap under filter.

    Attributes:
        state: "in force", "quarantined", or "missing" (chains of the record are not in the kernel).
        learned: the addresses that the kernel has learned from the guest.
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
    learned: tuple[str, ...]
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
            "learned": list(self.learned),
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
        self.elements: dict[str, tuple[str, ...]] = {}
        for item in items:
            if "chain" in item:
                self.chains.add(item["chain"]["name"])
            elif "set" in item:
                found = item["set"].get("elem", ())
                self.elements[item["set"]["name"]] = tuple(_address(each) for each in found)
            elif "rule" in item:
                self._count(item["rule"])

    def _count(self, rule: Mapping[str, Any]) -> None:
        parts: dict[str, Any] = {}
        for part in rule.get("expr", ()):
            parts.update(part)
        if ("drop" in parts or "reject" in parts) and isinstance(parts.get("counter"), dict):
            chain = rule["chain"]
            self.dropped[chain] = self.dropped.get(chain, 0) + int(parts["counter"]["packets"])


def _address(element: Any) -> str:
    """A set's element: the value itself, or an object around it when it has a timeout or the like."""
    return str(element["elem"]["val"]) if isinstance(element, dict) and "elem" in element else str(element)


def _view(guest: str, uuid: str, binding: Binding, listing: _Listing) -> TapView:
    chains = binding.objects.chains
    counted = [listing.dropped[chain] for chain in chains if chain in listing.dropped]
    state = "quarantined" if binding.quarantined else "in force"
    if not set(chains) <= listing.chains:
        state = "missing"
    learned = f"learned-ip/{binding.tap}"
    return TapView(
        guest=guest,
        uuid=uuid,
        tap=binding.tap,
        mac=binding.mac,
        filter=binding.filter,
        parameters=binding.parameters,
        attachment=binding.attachment.value,
        state=state,
        learned=listing.elements.get(learned, ()),
        chains=chains,
        dropped=sum(counted) if counted else None,
    )
