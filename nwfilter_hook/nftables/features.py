"""
What the running kernel can't do: asked once, only for rulesets that need it.

In:  a `Host` and rulesets.
Out: nothing, or an error that names the rule and the missing config symbol.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from ..base.errors import MissingFeature, NftError
from ..host import Host
from ..ruleset.fields import Field
from ..ruleset.model import AnyState, CountAbove, Rule, Ruleset, Verdict
from .process import MISSING_CT, MISSING_REJECT
from .script import TABLE


def check_features(host: Host, rulesets: Iterable[Ruleset]) -> None:
    """
    Refuse, by name, what the running kernel can't do; only rulesets that need something ask the kernel.

    Raises:
        MissingFeature: with the rule and the config symbol.
    """
    first: dict[str, Rule] = {}
    for ruleset in rulesets:
        for chain in ruleset.chains:
            for rule in chain.rules:
                for need in _needs(rule):
                    first.setdefault(need, rule)
    for need, rule in first.items():
        statement, missing = _PROBES[need]
        if not _kernel_takes(host, need, statement):
            message = f"{rule.source}: this kernel can't enforce the rule: it lacks {missing} (or it is not loaded)"
            raise MissingFeature(message)


# what the kernel answers to a rule with an expression that it doesn't have
_LACKS = ("Protocol error", "No such file or directory", "Operation not supported")
_PROBES = {"ct": ("ct state new", MISSING_CT), "reject": ("reject", MISSING_REJECT)}


def _needs(rule: Rule) -> Sequence[str]:
    needs = []
    if rule.verdict is Verdict.REJECT:
        needs.append("reject")
    if any(
        isinstance(match.test, (AnyState, CountAbove)) or match.field is Field.CT_DIRECTION for match in rule.matches
    ):
        needs.append("ct")
    return needs


def _kernel_takes(host: Host, need: str, statement: str) -> bool:
    """Ask nft to check a rule with `statement`; a yes is remembered for this kernel and this nft."""
    key = f"{os.uname().release} {host.nft.version()}"
    known = host.state.read_capabilities()
    if known.get("host") == key and known.get(need) is True:
        return True
    probe = (
        f"add table bridge {TABLE}-probe\n"
        f"add chain bridge {TABLE}-probe c {{ type filter hook prerouting priority 0; }}\n"
        f"add rule bridge {TABLE}-probe c {statement}\n"
    )
    complaint = host.nft.check_script(probe)
    if complaint is not None:
        if any(word in complaint for word in _LACKS):
            return False
        first_line = (complaint.splitlines() or ["no message"])[0]
        raise NftError(f"nft can't be asked what this kernel can do: {first_line}")
    host.state.write_capabilities({**(known if known.get("host") == key else {"host": key}), need: True})
    return True
