"""Whatever a filter asks for, `reconnect` knows its rules again, and sees when one asks for something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.domains import domain, interface
from tests.support.language import every_row
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

LEARNING = (
    [("CTRL_IP_LEARNING", "any"), ("CTRL_IP_LEARNING_MAX", "3"), ("CTRL_IPV6_LEARNING", "any")],
    [("CTRL_IP_LEARNING", "dhcp"), ("CTRL_IPV6_LEARNING", "any")],
    [("CTRL_IP_LEARNING", "dhcp"), ("DHCPSERVER", "10.0.0.99"), ("CTRL_IPV6_LEARNING", "any")],
)


def left_alone(wire: Wire, xml: str) -> bool:
    """Does `reconnect` find everything in order? If not, it has said so and repaired it."""
    done = wire.hook("web", "reconnect", xml)
    assert done.returncode == 0
    assert done.stderr == "" or "repaired" in done.stderr
    return done.stderr == ""


def test_every_row_of_the_language(wire: Wire, tmp_path: Path) -> None:
    """With each attribute and sign: what the kernel has is what nft would give it."""
    (tmp_path / "every-row.xml").write_text(every_row(connections=False))
    wire.configure(filter_dirs=[tmp_path], counters="all")
    xml = domain("web", [interface("vnet0", "every-row")])
    wire.start("web", xml)
    assert len(wire.rules()) > 500
    assert left_alone(wire, xml)


@pytest.mark.parametrize("parameters", LEARNING)
def test_rules_that_learn(wire: Wire, parameters: list[tuple[str, str]]) -> None:
    """And with all that stores and looks up addresses."""
    xml = domain("web", [interface("vnet0", "clean-traffic-dual", parameters)])
    wire.start("web", xml)
    assert left_alone(wire, xml)


def test_a_dump_that_was_written_back(wire: Wire) -> None:
    """nft's listing leaves out the frame's type, so these rules would match inside a VLAN tag: ours are put back."""
    wire.configure("[nftables]\noptimise = no\n")
    xml = domain("web", [interface("vnet0", "clean-traffic", [("IP", "10.0.0.1")])])
    wire.start("web", xml)
    before = wire.nft("--debug=netlink", "list", "chain", "bridge", "nwfilter", "from/vnet0/ipv4-ip")
    wire.apply("flush ruleset\n" + wire.nft("list", "ruleset"))
    assert not left_alone(wire, xml)
    after = wire.nft("--debug=netlink", "list", "chain", "bridge", "nwfilter", "from/vnet0/ipv4-ip")
    assert after.count("link header + 12") == before.count("link header + 12") == 2
    assert left_alone(wire, xml)
