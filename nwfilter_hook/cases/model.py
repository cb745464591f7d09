"""
A test file's content, and how its cases ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base.dataclass import dataclass
from ..base.errors import Source
from ..ruleset.evaluate import State, Way
from ..ruleset.model import Attachment

NO_RULE = "none"
"""In `Case.rule`: the frame comes to the end, and no rule has decided."""


@dataclass(frozen=True)
class Case:
    """
    A packet, and what is to become of it.

    Attributes:
        packet: words (packets/given.py); or {"hex": TEXT}, or {"pcap": FILE, "number": N}.
        state: None for what the packet itself suggests, and then `reply` says nothing.
        rule: FILTER, FILTER:LINE or `NO_RULE`: what must decide; None for anything.
    """

    name: str
    source: Source
    way: Way
    packet: Mapping[str, Any]
    passes: bool
    rule: str | None
    state: State | None
    reply: bool
    from_host: bool


@dataclass(frozen=True)
class Suite:
    """
    The cases of one document, all of the same filters.

    Attributes:
        filters: a tree that refers to these, in this order.
        learned: addresses and MACs that the tap has learned.
        sets: what is in the administrator's sets.
    """

    path: str
    source: Source
    filters: tuple[str, ...]
    mac: str
    parameters: Mapping[str, tuple[str, ...]]
    attachment: Attachment
    learned: tuple[str, ...]
    sets: Mapping[str, tuple[str, ...]]
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Outcome:
    """
    How a case ended.

    Attributes:
        passes: what became of the packet.
        rules: the rules that decided, in the order of layers: each of them lets it pass, or the last drops it.
        fault: why there is no verdict; None if there is.
        untried: why it could not be tried here; None if it was.
    """

    suite: Suite
    case: Case
    passes: bool = False
    rules: tuple[str, ...] = ()
    fault: str | None = None
    untried: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it didn't end as it must."""
        return self.untried is None and bool(self.wrong)

    @property
    def wrong(self) -> str:
        """What is wrong; "" if nothing is."""
        if self.fault is not None:
            return self.fault
        by = f"by {', '.join(self.rules)}" if self.rules else "by no rule"
        if self.passes is not self.case.passes:
            must = "pass" if self.case.passes else "be dropped"
            return f"must {must}, but {'passes' if self.passes else 'is dropped'} {by}"
        wanted = self.case.rule
        names = {name for rule in self.rules for name in (rule, rule.rpartition(":")[0])}
        if wanted is None or wanted in names or (wanted == NO_RULE and not self.rules):
            return ""
        return f"is decided {by}, not by {'no rule' if wanted == NO_RULE else wanted}"
