"""What a kernel lacks is refused by name, whatever the kernel is that the tests run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwfilter_hook.base.errors import MissingFeature, NftError
from nwfilter_hook.config import Config
from nwfilter_hook.host import Host
from nwfilter_hook.nftables.features import check_features
from nwfilter_hook.ruleset.model import Ruleset
from nwfilter_hook.storage.library import Library
from nwfilter_hook.storage.state import State
from tests.unit.compiling import compiled, filter_xml, rule_xml
from tests.unit.fake_nft import FakeNft

CONNTRACK = rule_xml("<tcp/>", action="accept")
REJECT = rule_xml("<udp/>", action="reject")
PLAIN = rule_xml("<all/>", direction="inout")


class Kernel(FakeNft):
    """nft on a kernel that has no expressions of these names."""

    def __init__(self, *lacking: str, complaint: str = "Error: Could not process rule: Protocol error") -> None:
        super().__init__()
        self.lacking = lacking
        self.complaint = complaint
        self.asked = 0

    def check_script(self, text: str) -> str | None:
        self.asked += 1
        return self.complaint if any(f" c {word}" in text for word in self.lacking) else None


def check(directory: Path, nft: FakeNft, *rules: str) -> Ruleset:
    """Ask the kernel about a filter of these rules."""
    state = State(str(directory), print)
    with state.locked():
        pass
    ruleset = compiled(filter_xml(*rules))
    check_features(Host(Config(), Library([]), nft, state, print, print), [ruleset])
    return ruleset


def test_what_is_lacking_is_named(tmp_path: Path) -> None:
    """With the rule that wants it, at its line."""
    with pytest.raises(MissingFeature, match=r"^f.xml:3: this kernel .* lacks CONFIG_NF_CONNTRACK_BRIDGE \("):
        check(tmp_path, Kernel("ct"), PLAIN, CONNTRACK)
    with pytest.raises(MissingFeature, match=r"^f.xml:4: this kernel .* lacks CONFIG_NFT_BRIDGE_REJECT \("):
        check(tmp_path, Kernel("reject"), PLAIN, CONNTRACK, REJECT)


def test_only_what_needs_it_is_refused(tmp_path: Path) -> None:
    """Other rules don't even ask; what `reject` answers needs connection tracking, too."""
    kernel = Kernel("ct", "reject")
    check(tmp_path, kernel, PLAIN, rule_xml("<ip/>", action="reject"))
    assert kernel.asked == 0
    check(tmp_path / "a", Kernel("reject"), CONNTRACK)
    with pytest.raises(MissingFeature, match="CONFIG_NF_CONNTRACK_BRIDGE"):
        check(tmp_path / "b", Kernel("ct"), REJECT, PLAIN)


def test_a_yes_is_remembered_and_a_no_is_not(tmp_path: Path) -> None:
    """A module may be loaded later; what is there stays."""
    kernel = Kernel("ct")
    for _ in range(2):
        with pytest.raises(MissingFeature):
            check(tmp_path, kernel, CONNTRACK)
    kernel.lacking = ()
    for _ in range(2):
        check(tmp_path, kernel, CONNTRACK)
    assert kernel.asked == 3


def test_another_complaint_is_nfts(tmp_path: Path) -> None:
    """It says nothing of the kernel, and is no reason to name a symbol."""
    with pytest.raises(NftError, match="can't be asked what this kernel can do: Error: Operation not permitted"):
        check(tmp_path, Kernel("ct", complaint="Error: Operation not permitted\nmore"), CONNTRACK)
