"""
Whether the kernel has what the records say, for all taps in one look.

In:  a `Host`. Out: what differs.
"""

from __future__ import annotations

from ..base.dataclass import dataclass
from ..host import Host
from ..storage.records import Binding, Record


@dataclass(frozen=True)
class Difference:
    """A tap that has something else in the kernel than its record says."""

    record: Record
    binding: Binding


def find_differences(host: Host) -> list[Difference]:
    """
    Every tap whose chains, rules or map elements aren't those that were put there.

    Raises:
        NftError: the kernel can't be asked.
    """
    records = host.state.records()
    found = host.backend.fingerprints([binding.installed for record in records for binding in record.bindings])
    return [
        Difference(record, binding)
        for record in records
        for binding in record.bindings
        if binding.fingerprint and found[binding.tap] != binding.fingerprint
    ]
