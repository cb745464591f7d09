"""
What this kernel and this nft can do, asked now and not remembered.

In:  an `Nft`. Out: see capabilities.py.
"""

from __future__ import annotations

import re

from ..capabilities import Capability, Survey
from .features import SYMBOLS, Features
from .process import Nft

USES = {
    "ct": "rules of layer 3 (tcp, udp, icmp, all, …), which look at connections, and bounds of connections",
    "reject": "rules with action='reject'",
    "count": "connlimit-above, and [nftables] connections",
    "zones": "guests with equal addresses on two bridges, whose connections are kept apart",
    "ibrname": "[guard] mode = bridges or strict",
    "ingress": "rules on what a guest sends to 01:80:c2:00:00:00 to 0f, which no later hook sees",
}


class NftSurvey(Survey):
    """Asks nft."""

    def __init__(self, nft: Nft) -> None:
        self._nft = nft

    def version(self) -> str:
        found = re.search(r"v([0-9]+(?:\.[0-9]+)*)", self._nft.run(["--version"]).out)
        return found[1] if found else ""

    def capabilities(self) -> tuple[Capability, ...]:
        features = Features(self._nft, dict, lambda _: None)
        return tuple(
            Capability(name, symbol, module, USES[name], features.find_out(name))
            for name, (symbol, module) in SYMBOLS.items()
        )
