"""
What the running kernel can't do: asked once, only for rulesets that need it.

In:  an `Nft`, what was found out before, rulesets.
Out: what is found out now, or an error that names the rule and the missing config symbol.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from ..base.errors import MissingFeature, NftError
from ..ruleset.fields import Field
from ..ruleset.model import AnyState, CountAbove, Rule, Ruleset, Verdict
from .names import TABLE
from .process import Nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Remember = Callable[["Mapping[str, Any]"], None]

_CHAIN = "add chain bridge {table} c {{ type filter hook prerouting priority 0; }}\nadd rule bridge {table} c "
_PROBES = {
    "ct": _CHAIN + "ct state new",
    "reject": _CHAIN + "reject",
    "count": _CHAIN + "ct count over 1",
    "zones": _CHAIN + 'ct zone set meta ibrname map {{ "br0" : 1 }}',
    "ibrname": _CHAIN + 'meta ibrname "br0"',
    "absent": 'add chain netdev {table} c {{ type filter hook ingress device "nwfilter-absent" priority 0; }}',
    "ingress": 'add chain netdev {table} c {{ type filter hook ingress device "lo" priority 0; }}',
}
"""
By feature: what nft's check takes if the kernel has it. "absent" is a chain for a device that isn't there, which Linux
takes since 6.16; nothing needs it.
"""

SYMBOLS = {
    "ct": ("CONFIG_NF_CONNTRACK_BRIDGE", "nf_conntrack_bridge"),
    "reject": ("CONFIG_NFT_BRIDGE_REJECT", "nft_reject_bridge"),
    "count": ("CONFIG_NFT_CONNLIMIT", "nft_connlimit"),
    "zones": ("CONFIG_NF_CONNTRACK_ZONES", ""),
    "ingress": ("CONFIG_NETFILTER_INGRESS", ""),
    "ibrname": ("CONFIG_NFT_BRIDGE_META", "nft_meta_bridge"),
}
"""Config symbol, and the module that has it; "" if it is part of another."""


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


class Features:
    """
    What the running kernel can do, asked as needed.

    Args:
        recall: gives what an earlier process has found out, for this kernel and nft or for others; {} for nothing.
        remember: keeps it for later ones. A no is not remembered: a module may be loaded later.
    """

    def __init__(self, nft: Nft, recall: Callable[[], Mapping[str, Any]], remember: Remember) -> None:
        self._nft, self._recall, self._remember = nft, recall, remember
        self._found: Mapping[str, Any] = {}

    @property
    def known(self) -> Mapping[str, Any]:
        """By feature, True if it was found: now, or before and kept."""
        return self._found or self._recall()

    def check(self, needs: Mapping[str, str]) -> None:
        """
        Refuse, by name, what the kernel can't do.

        Args:
            needs: see `needs_of`.

        Raises:
            MissingFeature: with what can't be and the config symbol.
            NftError: nft can't be asked.
        """
        for need, said in needs.items():
            if not self.find_out(need):
                symbol, module = SYMBOLS[need]
                missing = f"{symbol} (module {module}) (or it is not loaded)"
                raise MissingFeature(f"{said}: it lacks {missing}")
        if "ct" in needs:
            self.find_out("count")

    def has(self, feature: str) -> bool:
        """Whether the kernel has it; True if nft can't be asked, and then a transaction tells what is wrong."""
        try:
            return self.find_out(feature)
        except NftError as error:
            if error.unsure:
                raise
            return True

    def find_out(self, feature: str) -> bool:
        """Whether the kernel has it. Raises NftError: nft can't be asked."""
        host = f"{os.uname().release} {self._nft.identity()}"
        known = self.known
        if known.get("host") != host:
            known = {"host": host}
        if known.get(feature) is not True:
            if _complaint(self._nft, _PROBES[feature]) is not None:
                complaint = _complaint(self._nft, _CHAIN + "accept")
                if complaint is not None:
                    raise NftError(f"nft can't be asked what this kernel can do: {complaint}")
                self._found = known
                return False
            known = {**known, feature: True}
        if known != self.known:
            self._remember(known)
        self._found = known
        return True


def _needs(rule: Rule) -> Iterator[str]:
    if rule.verdict is Verdict.REJECT:
        yield "reject"
    if any(
        isinstance(match.test, (AnyState, CountAbove)) or match.field is Field.CT_DIRECTION for match in rule.matches
    ):
        yield "ct"
    if any(isinstance(match.test, CountAbove) for match in rule.matches):
        yield "count"


def needs_of_statements(statements: Iterable[str]) -> tuple[str, ...]:
    """The same of rules as they are recorded."""
    text = "\n".join(statement.partition(' comment "')[0] for statement in statements)
    words = {"ct": " ct ", "reject": " reject", "count": " ct count "}
    return tuple(feature for feature, word in words.items() if word in text)


def _complaint(nft: Nft, probe: str) -> str | None:
    """nft's against the commands of `probe`, which aren't carried out; None if it takes them."""
    table = f"{TABLE}-probe"
    tables = "".join(f"add table {family} {table}\n" for family in ("bridge", "netdev") if family in probe)
    ran = nft.run(["--check", "-f", "-"], f"{tables}{probe.format(table=table)}\n")
    return None if ran.status == 0 else (ran.err.strip().splitlines() or ["no message"])[0]
