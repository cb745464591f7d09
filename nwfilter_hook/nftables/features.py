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

_PROBES = {
    "ct": ("ct state new", "CONFIG_NF_CONNTRACK_BRIDGE (module nf_conntrack_bridge)"),
    "reject": ("reject", "CONFIG_NFT_BRIDGE_REJECT (module nft_reject_bridge)"),
}
"""By feature: a statement that the kernel takes if it has it, and what to look for if not."""


def needs_of(rulesets: Iterable[Ruleset]) -> dict[str, Rule]:
    """What the rules need of the kernel beside nftables itself, each with the first rule that does."""
    first: dict[str, Rule] = {}
    for ruleset in rulesets:
        for chain in ruleset.chains:
            for rule in chain.rules:
                for need in _needs(rule):
                    first.setdefault(need, rule)
    return first


def check_features(nft: Nft, needs: Mapping[str, Rule], known: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Refuse, by name, what the running kernel can't do.

    Args:
        needs: see `needs_of`.
        known: what an earlier call has returned, for this kernel and nft or for others; {} for nothing.

    Returns:
        The same, with what was found out now.

    Raises:
        MissingFeature: with the rule and the config symbol.
        NftError: nft can't be asked.
    """
    host = f"{os.uname().release} {nft.version()}"
    if known.get("host") != host:
        known = {"host": host}
    for need, rule in needs.items():
        statement, missing = _PROBES[need]
        if known.get(need) is not True:
            if not _kernel_takes(nft, statement):
                message = f"{rule.source}: this kernel can't enforce the rule: it lacks {missing} (or it is not loaded)"
                raise MissingFeature(message)
            known = {**known, need: True}
    return known


def _needs(rule: Rule) -> Iterator[str]:
    if rule.verdict is Verdict.REJECT:
        yield "reject"
    if any(
        isinstance(match.test, (AnyState, CountAbove)) or match.field is Field.CT_DIRECTION for match in rule.matches
    ):
        yield "ct"


def _kernel_takes(nft: Nft, statement: str) -> bool:
    """Whether a rule with `statement` passes nft's check, where one without passes."""
    if _checks(nft, statement) is None:
        return True
    complaint = _checks(nft, "accept")
    if complaint is not None:
        raise NftError(f"nft can't be asked what this kernel can do: {complaint}")
    return False


def _checks(nft: Nft, statement: str) -> str | None:
    probe = (
        f"add table bridge {TABLE}-probe\n"
        f"add chain bridge {TABLE}-probe c {{ type filter hook prerouting priority 0; }}\n"
        f"add rule bridge {TABLE}-probe c {statement}\n"
    )
    ran = nft.run(["--check", "-f", "-"], probe)
    return None if ran.status == 0 else (ran.err.strip().splitlines() or ["no message"])[0]
