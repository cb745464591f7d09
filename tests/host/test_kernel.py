"""
What the kernel at hand can't do in the bridge family is refused by name, and nothing else is.

On a kernel that can do everything all of these filters are taken; tests/unit/nftables/test_features.py has both kinds,
and which rules need what.
"""

from __future__ import annotations

import functools
import subprocess

import pytest

from tests.support.host import GUEST, TAP, Sandbox, guest_xml

pytestmark = pytest.mark.hook

CONNECTIONS, REJECTION = "CONFIG_NF_CONNTRACK_BRIDGE", "CONFIG_NFT_BRIDGE_REJECT"
STATEMENTS = {CONNECTIONS: "ct state new", REJECTION: "reject"}
CASES = [
    ("<rule action='accept' direction='out'><tcp/></rule>", CONNECTIONS),
    ("<rule action='drop' direction='out'><udp connlimit-above='3'/></rule>", CONNECTIONS),
    ("<rule action='reject' direction='out'><udp/></rule>", REJECTION),
    ("<rule action='accept' direction='in' statematch='false'><tcp/></rule>", ""),
    ("<rule action='reject' direction='in'><udp state='NONE'/></rule>", ""),
    ("<rule action='reject' direction='inout'><ip/></rule>", ""),
]
"""Rules to what they need."""


@functools.cache
def lacks(symbol: str) -> bool:
    """Whether this kernel refuses what needs it, asked without our code."""
    script = (
        "add table bridge probe\nadd chain bridge probe c { type filter hook prerouting priority 0; }\n"
        f"add rule bridge probe c {STATEMENTS[symbol]}\n"
    )
    nft = ["unshare", "--net", "nft", "-f", "-"]
    return subprocess.run(nft, input=script, text=True, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(("rule", "symbol"), CASES)
def test_exactly_what_the_kernel_lacks_is_refused(box: Sandbox, rule: str, symbol: str) -> None:
    """Before the guest has taps and at its start: one line with the rule's place and the symbol; nothing is left."""
    box.write_filter("wants", f"<!-- line 2 -->\n{rule}")
    xml = guest_xml(filter_name="wants")
    if symbol and lacks(symbol):
        for operation in ("prepare", "start", "attach"):
            with box.unchanged():
                line = box.hook(GUEST, operation, xml).refused("wants.xml:3: this kernel can't enforce", symbol)
            assert [each for each in STATEMENTS if each in line] == [symbol]
        box.assert_nothing_left()
    else:
        box.hook(GUEST, "prepare", xml).fine()
        box.hook(GUEST, "start", xml).fine()
        assert box.in_force()


@pytest.mark.parametrize(("rule", "symbol"), [CASES[0], CASES[2]])
def test_a_guest_that_runs_is_cut_off(box: Sandbox, rule: str, symbol: str) -> None:
    """If libvirtd finds it running without its rules: nothing passes, and the symbol is named."""
    box.write_filter("wants", rule)
    ran = box.hook(GUEST, "reconnect", guest_xml(filter_name="wants"))
    if lacks(symbol):
        ran.excused(TAP, "quarantined, nothing passes in or out", symbol)
        assert box.quarantined()
    else:
        assert ran.status == 0
        assert box.in_force()
        assert not box.quarantined()
