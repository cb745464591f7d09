"""
What a tap's things are called in nft, and whose a name is.

    from/TAP  to/TAP          chains of layer 2, what the guest sends and gets; from/TAP/CHAIN its sub-chains
    from-l3/TAP  to-l3/TAP    of layer 3
    ingress/TAP               what the guest sends to addresses that a bridge keeps to itself; in the other table
    learned/TAP …             its sets (sets.py)

A tap's name holds no "/", so a name belongs to one tap or to none. All are in tables named `nwfilter`, which are ours
alone: one of family bridge for bridge ports, one of family netdev for other devices.
"""

from __future__ import annotations

from ..base.dataclass import dataclass
from ..ruleset.model import SetPurpose, Stage
from .sets import encode

TABLE = "nwfilter"


@dataclass(frozen=True)
class BaseChain:
    """
    One of our hooks for bridge ports: which map it looks the interface up in, and where it stands.

    Attributes:
        stage: whose roots the map leads to; None for the bounds on connections (bounds.py).
    """

    stage: Stage | None
    name: str
    map: str
    hook: str
    priority: int
    selector: str


BASE_CHAINS = (
    BaseChain(Stage.FROM_L2, "l2-prerouting", "from-guest-l2", "prerouting", -300, "iifname"),
    BaseChain(Stage.FROM_L3, "l3-prerouting", "from-guest-l3", "prerouting", -150, "iifname"),
    BaseChain(Stage.TO_L3, "l3-postrouting", "to-guest-l3", "postrouting", 0, "oifname"),
    BaseChain(Stage.TO_L2, "l2-postrouting", "to-guest-l2", "postrouting", 300, "oifname"),
)
BOUNDS = BaseChain(None, "bound-prerouting", "bounds", "prerouting", -140, "ct status & confirmed == 0 iifname")
LOOKUPS = (*BASE_CHAINS, BOUNDS)
LOOKUP = "{ type ifname : verdict; }"
"""What each map is made with."""
MAP_OF = {base.stage: base.map for base in BASE_CHAINS if base.stage}
MAPS = frozenset(base.map for base in LOOKUPS)

_CHAIN_PREFIXES = frozenset(stage.value for stage in Stage)
_SET_PREFIXES = frozenset(purpose.value + version for purpose in SetPurpose for version in ("", "6"))
_FORMER_SET_PREFIXES = frozenset(("learned-ip", "learned-ip6", "unread-lease"))
"""Of versions before 0.2: their sets go with the next transaction."""
_SHARED_PREFIXES = frozenset(SetPurpose.IPSET.value + version for version in ("", "6"))


def chain_name(tap: str, stage: Stage, name: str | None) -> str:
    """`from/vnet0`, `from/vnet0/arp-mac`. A tap's name holds no "/", so no two taps' chains can be confused."""
    root = f"{stage.value}/{tap}"
    return root if name is None else f"{root}/{encode(name)}"


def is_of_tap(kind: str, name: str, tap: str) -> bool:
    """Whether a "chain", or a "set" or "map", of that name is one that we make for `tap`."""
    prefix, _, rest = name.partition("/")
    prefixes = _CHAIN_PREFIXES if kind == "chain" else _SET_PREFIXES - _SHARED_PREFIXES | _FORMER_SET_PREFIXES
    return prefix in prefixes and rest.split("/")[0] == tap
