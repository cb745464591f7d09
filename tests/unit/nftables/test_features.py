"""What a kernel lacks is refused by name, whatever the kernel is that the tests run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from nwfilter_hook.base.errors import MissingFeature, NftError
from nwfilter_hook.nftables.features import Features, needs_of
from nwfilter_hook.nftables.process import Nft, Ran
from tests.unit.compiling import compiled, filter_xml, rule_xml

CONNTRACK = rule_xml("<tcp/>", action="accept")
REJECT = rule_xml("<udp/>", action="reject")
PLAIN = rule_xml("<all/>", direction="inout")


class Kernel(Nft):
    """nft on a kernel that has no expressions of these names, or that lets nobody ask."""

    def __init__(self, *lacking: str, closed: bool = False) -> None:
        super().__init__("/nonexistent/nft", 1.0)
        self.lacking = lacking
        self.closed = closed
        self.asked = 0

    def run(self, arguments: Sequence[str], text: str = "") -> Ran:
        self.asked += 1
        if self.closed:
            return Ran(1, "", "Error: Operation not permitted\nmore")
        refused = any(f" c {word}" in text for word in self.lacking)
        return Ran(int(refused), "", "Error: whatever it says" if refused else "")


def check(nft: Kernel, *rules: str, known: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Ask the kernel about a filter of these rules, where there is no place to keep the answer."""
    features = Features(nft, lambda: known or {}, lambda found: None)
    features.check(needs_of([compiled(filter_xml(*rules))]))
    return features.known


def test_what_is_lacking_is_named() -> None:
    """With the rule that wants it, at its line."""
    with pytest.raises(MissingFeature, match=r"^f.xml:3: this kernel .* lacks CONFIG_NF_CONNTRACK_BRIDGE \("):
        check(Kernel("ct"), PLAIN, CONNTRACK)
    with pytest.raises(MissingFeature, match=r"^f.xml:4: this kernel .* lacks CONFIG_NFT_BRIDGE_REJECT \("):
        check(Kernel("reject"), PLAIN, CONNTRACK, REJECT)


@pytest.mark.parametrize(
    ("protocol", "others", "needs"),
    [
        ("<tcp/>", {"action": "accept"}, {"ct"}),
        ("<all state='NEW'/>", {"direction": "in"}, {"ct"}),
        ("<icmpv6 type='128'/>", {"action": "accept", "direction": "in"}, {"ct"}),
        ("<udp/>", {"action": "reject"}, {"ct", "reject"}),
        ("<all-ipv6/>", {"action": "reject", "direction": "inout"}, {"ct", "reject"}),
        ("<tcp dstportstart='22'/>", {"direction": "in"}, set()),
        ("<tcp/>", {"action": "accept", "direction": "inout"}, set()),
        ("<tcp/>", {"action": "accept", "direction": "in", "statematch": "false"}, set()),
        ("<tcp state='NONE'/>", {"action": "accept", "direction": "in"}, set()),
        ("<icmp type='8'/>", {}, set()),
        ("<all/>", {"action": "return"}, set()),
        ("<udp state='NONE'/>", {"action": "reject", "direction": "in"}, set()),
        ("<ip/>", {"action": "reject", "direction": "inout"}, set()),
    ],
)
def test_which_rules_need_what(protocol: str, others: dict[str, str], needs: set[str]) -> None:
    """Most need nothing and don't even ask."""
    assert needs_of([compiled(filter_xml(rule_xml(protocol, **others)))]).keys() == needs


def test_only_what_needs_it_is_refused() -> None:
    """What `reject` answers needs connection tracking, too."""
    check(Kernel("reject"), CONNTRACK)
    with pytest.raises(MissingFeature, match="CONFIG_NF_CONNTRACK_BRIDGE"):
        check(Kernel("ct"), REJECT, PLAIN)


def test_a_yes_is_remembered_and_a_no_is_not() -> None:
    """A module may be loaded later; what is there stays."""
    kernel = Kernel("ct")
    for _ in range(2):
        with pytest.raises(MissingFeature):
            check(kernel, CONNTRACK)
    kernel.lacking, kernel.asked = (), 0
    known = check(kernel, CONNTRACK)
    assert check(kernel, CONNTRACK, known=known) == known
    assert kernel.asked == 2
    check(kernel, CONNTRACK, known={**known, "host": "another kernel"})
    assert kernel.asked == 4


def test_a_kernel_that_tracks_connections_is_asked_whether_it_counts_them() -> None:
    """What bounds of guests need is known as soon as one is tracked, though it was found out a moment ago."""
    assert check(Kernel(), CONNTRACK)["count"] is True
    assert "count" not in check(Kernel("ct count"), CONNTRACK)


def test_who_cant_ask_knows_nothing() -> None:
    """Where not even a rule that every kernel takes passes, the answer says nothing of the kernel."""
    with pytest.raises(NftError, match="can't be asked what this kernel can do: Error: Operation not permitted"):
        check(Kernel("ct", closed=True), CONNTRACK)
