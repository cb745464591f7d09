"""No table of others decides about guests' frames in the hooks of bridges or of taps."""

from __future__ import annotations

from collections.abc import Iterator

from ...network.surroundings import is_own_table
from ...network.tables import Chain
from ..findings import Finding, hint
from ..patient import Patient

_DECIDES = {"drop", "reject", "accept", "map"}


def examine(patient: Patient) -> Iterator[Finding]:
    """A hint: a table with a base chain there drops, rejects or accepts."""
    seen: dict[tuple[str, str], list[Chain]] = {}
    for each in patient.chains:
        if not is_own_table(each.table) and _is_met(each, patient):
            seen.setdefault((each.family, each.table), []).append(each)
    for (family, table), chains in seen.items():
        inside = patient.statements[family, table]
        does = {word for words in inside.values() for word in words} & _DECIDES
        does |= {"drop"} if any(each.policy == "drop" for each in chains) else set()
        if does:
            where = ", ".join(f"{each.name} ({each.hook}, priority {each.priority})" for each in chains)
            words = " and ".join(sorted(does)).replace("map", "verdicts in a map")
            yield hint(
                f"table {family} {table} decides about guests' frames: {where}; in it is {words}",
                "what it drops no filter lets through, nor counts; what it accepts is still for our rules to decide",
                f"nft list table {family} {table}",
            )


def _is_met(chain: Chain, patient: Patient) -> bool:
    if not chain.hook:
        return False
    if chain.family == "bridge":
        return bool(patient.bridges)
    return chain.hook in ("ingress", "egress") and any(map(chain.devices.include, patient.taps))
