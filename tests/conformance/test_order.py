"""
Nothing is accepted before the anti-spoofing rules: whatever else is in a tree, no spoofed frame leaves the guest.

The anti-spoofing stock filters stand anywhere in the tree, among rules and references, at any depth; the other rules
are anything that the order puts behind them: at layer 2 root rules from priority 0 on and chains of their own, at their
default priorities or, those of all frames (mac-own) and of BPDUs (stp-own), at one behind the anti-spoofing chains; at
layer 3 rules of any priority in any chain. What stands before them decides before them: a root rule at -900, a chain
mac-own that is referred to first, a chain stp-own (-810; in libvirt 0). Who writes `accept` there means it.
"""

from __future__ import annotations

import ipaddress
import random
import re

import pytest

from nwfilter_hook.filters.protocols import ELEMENTS
from nwfilter_hook.ruleset.evaluate import Context, State, Way, evaluate
from nwfilter_hook.ruleset.fields import Field
from nwfilter_hook.ruleset.model import Stage, Verdict
from tests.conformance.filters import MAC, ROOT, Maker, Part, Tree, with_priority
from tests.conformance.kernel import TAPS, Tally, compare
from tests.conformance.mutation import frames
from tests.conformance.packets import BRIDGE_GROUP, OTHER_IP, OTHER_IP6, OTHER_MAC, build
from tests.support.netns import Wire

OWN_IPS = ("10.0.0.1", "10.0.0.2")
OWN_IP6S = ("2001:db8::1", "fe80::5054:ff:fe00:1")
ANTI_SPOOFING = {
    "no-mac-spoofing": ("mac",),
    "no-ip-spoofing": ("ip",),
    "no-arp-mac-spoofing": ("arp-mac",),
    "no-arp-ip-spoofing": ("arp-ip",),
    "no-arp-spoofing": ("arp-mac", "arp-ip"),
    "no-ipv6-spoofing": ("ip6",),
    "clean-traffic": ("mac", "ip", "arp-mac", "arp-ip"),
}
_ELEMENT = re.compile(r"^<rule [^>]*><([a-z0-9-]+)")


def spoofs(frame: bytes) -> frozenset[str]:
    """What about `frame` isn't the guest's own, told from its bytes alone."""
    found = set()
    if frame[6:12] != bytes.fromhex(MAC.replace(":", "")):
        found.add("mac")
    ether_type, packet = frame[12:14].hex(), frame[14:]
    if ether_type == "0800":
        dhcp = packet[12:16] == bytes(4) and packet[9:10] == b"\x11"
        if not dhcp and packet[12:16] not in {ipaddress.IPv4Address(ip).packed for ip in OWN_IPS}:
            found.add("ip")
    elif ether_type == "86dd":
        # the stock filter lets UDP from any link-local address pass, for DHCPv6; extension headers may precede it
        link_local = packet[8:9] == b"\xfe" and packet[9:10] and packet[9] & 0xC0 == 0x80
        if not link_local and packet[8:24] not in {ipaddress.IPv6Address(ip).packed for ip in OWN_IP6S}:
            found.add("ip6")
    elif ether_type == "0806":
        if packet[8:14].hex(":") != MAC:
            found.add("arp-mac")
        if packet[14:18] not in {ipaddress.IPv4Address(ip).packed for ip in OWN_IPS}:
            found.add("arp-ip")
    return frozenset(found)


def anti_spoofing_tree(rng: random.Random, *, stateful: bool) -> tuple[Tree, frozenset[str]]:
    """A tree, and what it must keep the guest from."""
    maker = Maker(rng, stateful)
    maker.values_each = len(OWN_IPS)  # lists that advance together are equally long
    maker.parameters.update(IP=OWN_IPS, IPV6=OWN_IP6S)
    kept: set[str] = set()
    parts = []
    for number in range(rng.randint(1, 4)):
        prefix = rng.choice(("ipv4", "ipv6", "arp", "rarp", "vlan", "mac", "stp"))
        priority = rng.choice((-400, 0, 1000)) if prefix in ("mac", "stp") else None
        chain = rng.choice(("root", "root", f"{prefix}-own{number}"))
        lines = [_later(rng, maker.rule(None if chain == "root" else prefix), chain) for _ in range(rng.randint(0, 4))]
        for name in rng.sample(sorted(ANTI_SPOOFING), rng.choice((0, 1, 2))):
            kept.update(ANTI_SPOOFING[name])
            lines.append(f"<filterref filter='{name}'/>")
        rng.shuffle(lines)
        parts.append(Part(f"f{number}", chain, None if chain == "root" else priority, tuple(lines)))
    root = [_later(rng, maker.rule(None), "root") for _ in range(rng.randint(1, 4))]
    root += [f"<filterref filter='{part.name}'/>" for part in parts]
    rng.shuffle(root)
    return Tree((Part(ROOT, "root", None, tuple(root)), *parts), tuple(maker.parameters.items())), frozenset(kept)


def _later(rng: random.Random, line: str, chain: str) -> str:
    """The rule, and if it is one of layer 2 in the root chain, behind the anti-spoofing chains."""
    found = _ELEMENT.match(line)
    layer = ELEMENTS[found[1]].layer if found else 2
    return with_priority(line, rng.choice((0, 100, 500, 1000))) if layer == 2 and chain == "root" else line


def spoofed_frames(rng: random.Random, kept: frozenset[str]) -> list[bytes]:
    """One plain case of each kind of spoofing."""
    cases = (
        {Field.ETHER_SRC: OTHER_MAC, Field.ETHER_TYPE: rng.choice((0x0800, 0x0806, 0x86DD, 0x8100, 0x9000))},
        {Field.ETHER_SRC: OTHER_MAC, Field.ETHER_DST: BRIDGE_GROUP, Field.STP_TYPE: 0},
        {Field.IP_SRC: OTHER_IP, Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: rng.choice((1, 6, 17))},
        {Field.IP6_SRC: OTHER_IP6, Field.ETHER_TYPE: 0x86DD, Field.L4_PROTOCOL: rng.choice((6, 17, 58))},
        {Field.ARP_SRC_MAC: OTHER_MAC, Field.ETHER_TYPE: 0x0806, Field.ARP_OPCODE: rng.choice((1, 2))},
        {Field.ARP_SRC_IP: OTHER_IP, Field.ETHER_TYPE: 0x0806, Field.ARP_OPCODE: rng.choice((1, 2))},
        {Field.ARP_SRC_IP: OTHER_IP, Field.ETHER_TYPE: 0x0806, Field.ARP_HLEN: 8},
    )
    return [frame for frame in map(build, cases) if spoofs(frame) & kept]


def test_a_chain_before_the_anti_spoofing_rules_decides_before_them() -> None:
    """A BPDU that an stp chain accepts leaves under any MAC, unless that chain is told to come later."""
    bpdu = build({Field.ETHER_SRC: OTHER_MAC, Field.ETHER_DST: BRIDGE_GROUP, Field.STP_TYPE: 0})
    for priority, passes in ((None, True), (-700, False)):
        lines = ("<filterref filter='no-mac-spoofing'/>", "<filterref filter='own'/>")
        own = Part("own", "stp", priority, ("<rule action='accept' direction='out'><stp/></rule>",))
        ruleset = Tree((Part(ROOT, "root", None, lines), own), ()).compile()
        assert evaluate(ruleset, bpdu, Way.FROM_GUEST, Context(State.NEW)).passes is passes


def test_no_spoofed_frame_passes_whatever_else_is_in_the_tree() -> None:
    """It ends at layer 2, and so never meets connection tracking: no established connection lets it through."""
    tried = passed = 0
    for seed in range(300):
        rng = random.Random(f"order/{seed}")
        tree, kept = anti_spoofing_tree(rng, stateful=True)
        ruleset = tree.compile()
        for frame in [*spoofed_frames(rng, kept), *frames(rng, ruleset, 60)]:
            context = Context(rng.choice(tuple(State)), reply=rng.random() < 0.5)
            evaluation = evaluate(ruleset, frame, Way.FROM_GUEST, context)
            if spoofs(frame) & kept:
                tried += 1
                assert not evaluation.passes, f"{tree.text()}\n{frame.hex()}"
                last = evaluation.layers[-1]
                assert last.stage in (Stage.INGRESS, Stage.FROM_L2), f"{tree.text()}\n{frame.hex()}"
                assert last.verdict is Verdict.DROP
            else:
                passed += evaluation.passes
    assert tried > 2000
    assert passed > 1000


@pytest.mark.netns
def test_no_spoofed_frame_passes_the_kernel(able: None) -> None:
    """A sample of the same, by the kernel."""
    tally = Tally()
    with Wire(TAPS) as wire:
        for seed in range(25):
            rng = random.Random(f"order/{seed}")
            tree, kept = anti_spoofing_tree(rng, stateful=False)
            sent = [*spoofed_frames(rng, kept), *frames(rng, tree.compile(), 40)]
            assert compare(wire, tree, sent, tally) == []
            for frame in sent:
                if spoofs(frame) & kept:
                    assert not wire.passes(frame), f"{tree.text()}\n{frame.hex()}"
    assert tally.frames > 1000
