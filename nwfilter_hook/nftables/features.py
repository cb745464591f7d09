"""
What the running kernel can't do: asked once, only for rulesets that need it.

In:  an `Nft`, what was found out before, rulesets.
Out: what is found out now, or an error that names the rule and the missing config symbol.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..base.errors import MissingFeature, NftError
from ..ruleset.fields import Field
from ..ruleset.model import AnyState, CountAbove, Rule, Ruleset, Verdict
from .names import TABLE
from .process import Nft

_CHAIN = "add chain bridge {table} c {{ type filter hook prerouting priority 0; }}\nadd rule bridge {table} c "
_PROBES = {
    "ct": _CHAIN + "ct state new",
    "reject": _CHAIN + "reject",
    "count": _CHAIN + "ct count over 1",
    "ingress": 'add chain netdev {table} c {{ type filter hook ingress device "lo" priority 0; }}',
}
"""By feature: what nft's check takes if the kernel has it."""

_SYMBOLS = {
    "ct": "CONFIG_NF_CONNTRACK_BRIDGE (module nf_conntrack_bridge)",
    "reject": "CONFIG_NFT_BRIDGE_REJECT (module nft_reject_bridge)",
    "count": "CONFIG_NFT_CONNLIMIT (module nft_connlimit)",
}


def needs_of(rulesets: Iterable[Ruleset]) -> dict[str, str]:
    """What they need of the kernel beside nftables itself, each with what is to be said of the first that does."""
    first: dict[str, str] = {}
    for ruleset in rulesets:
        for chain in ruleset.chains:
            for rule in chain.rules:
                for need in _needs(rule):
                    first.setdefault(need, f"{rule.source}: this kernel can't enforce the rule")
        if ruleset.connections:
            for need in ("ct", "count"):
                first.setdefault(need, f"this kernel can't count the connections of {ruleset.tap}")
    return first


def check_features(nft: Nft, needs: Mapping[str, str], known: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Refuse, by name, what the running kernel can't do.

    Args:
        needs: see `needs_of`.
        known: what an earlier call has returned, for this kernel and nft or for others; {} for nothing.

    Returns:
        The same, with what was found out now.

    Raises:
        MissingFeature: with what can't be and the config symbol.
        NftError: nft can't be asked.
    """
    for need, said in needs.items():
        known = find_out(nft, need, known)
        if not known.get(need):
            missing = f"{_SYMBOLS[need]} (or it is not loaded)"
            raise MissingFeature(f"{said}: it lacks {missing}")
    return known


def find_out(nft: Nft, need: str, known: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    `known`, with True for `need` if this kernel has it. A no is not remembered: a module may be loaded later.

    Raises:
        NftError: nft can't be asked.
    """
    host = f"{os.uname().release} {nft.identity()}"
    if known.get("host") != host:
        known = {"host": host}
    if known.get(need) is True:
        return known
    if _complaint(nft, _PROBES[need]) is None:
        return {**known, need: True}
    complaint = _complaint(nft, _CHAIN + "accept")
    if complaint is not None:
        raise NftError(f"nft can't be asked what this kernel can do: {complaint}")
    return known


def _needs(rule: Rule) -> Iterator[str]:
    if rule.verdict is Verdict.REJECT:
        yield "reject"
    if any(
        isinstance(match.test, (AnyState, CountAbove)) or match.field is Field.CT_DIRECTION for match in rule.matches
    ):
        yield "ct"
    if any(isinstance(match.test, CountAbove) for match in rule.matches):
        yield "count"


def _complaint(nft: Nft, probe: str) -> str | None:
    """nft's against the commands of `probe`, which aren't carried out; None if it takes them."""
    table = f"{TABLE}-probe"
    tables = "".join(f"add table {family} {table}\n" for family in ("bridge", "netdev") if family in probe)
    ran = nft.run(["--check", "-f", "-"], f"{tables}{probe.format(table=table)}\n")
    return None if ran.status == 0 else (ran.err.strip().splitlines() or ["no message"])[0]
