"""The administrator's address sets: filled by hand, looked up by rules, kept by everything but the administrator."""

from __future__ import annotations

import json

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import OTHER_IP, udp, udp6
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

FILTER = """<filter name='keep-out'>
  <rule action='drop' direction='out'><all ipset='bad guys' ipsetflags='dst'/></rule>
  <rule action='drop' direction='out'><all-ipv6 ipset='bad guys' ipsetflags='dst'/></rule>
</filter>"""


@pytest.fixture
def guest_xml(wire: Wire) -> str:
    """A guest that may not reach what is in the set."""
    (wire.directory / "keep-out.xml").write_text(FILTER)
    wire.configure(filter_dirs=[wire.directory])
    return domain("guest", [interface("vnet0", "keep-out")])


def run_set(wire: Wire, *words: str, status: int = 0) -> str:
    """`nwfilter-hook set WORDS` inside; what it printed, on stderr if it failed."""
    done = wire.command("set", *words)
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def test_a_rule_looks_up_what_the_administrator_put_in(wire: Wire, guest_xml: str) -> None:
    """An address takes part from the moment it is added until it is deleted; what is not in the set passes."""
    frame = udp(dst_ip=OTHER_IP)
    wire.start("guest", guest_xml)
    assert wire.passes(frame)
    run_set(wire, "add", "bad guys", OTHER_IP)
    assert not wire.passes(frame)
    assert wire.passes(udp(dst_ip="203.0.113.77"))
    run_set(wire, "delete", "bad guys", OTHER_IP)
    assert wire.passes(frame)


def test_networks_ranges_and_both_families(wire: Wire, guest_xml: str) -> None:
    """A set holds networks and ranges; IPv6 addresses of the same set bind IPv6 rules."""
    run_set(wire, "add", "bad guys", "198.51.100.0/24", "203.0.113.5-203.0.113.9", "2001:db8:bad::/48")
    wire.start("guest", guest_xml)
    assert not wire.passes(udp(dst_ip="198.51.100.255"))
    assert wire.passes(udp(dst_ip="198.51.101.0"))
    assert not wire.passes(udp(dst_ip="203.0.113.9"))
    assert wire.passes(udp(dst_ip="203.0.113.10"))
    assert not wire.passes(udp6(dst_ip="2001:db8:bad::1"))
    assert wire.passes(udp6(dst_ip="2001:db8:bae::1"))
    listed = json.loads(run_set(wire, "list", "bad guys", "--json"))
    assert listed == ["198.51.100.0/24", "203.0.113.5-203.0.113.9", "2001:db8:bad::/48"]


def test_a_set_survives_guests_and_starts(wire: Wire, guest_xml: str) -> None:
    """Starting again, stopping and starting another time leave the elements as they are."""
    frame = udp(dst_ip=OTHER_IP)
    run_set(wire, "add", "bad guys", OTHER_IP)
    wire.start("guest", guest_xml)
    wire.start("guest", guest_xml)
    assert not wire.passes(frame)
    wire.stop("guest", guest_xml)
    assert wire.passes(frame)
    wire.start("guest", guest_xml)
    assert not wire.passes(frame)
    assert "element does not exist" in run_set(wire, "delete", "bad guys", "10.9.9.9", status=1)
    run_set(wire, "flush", "bad guys")
    assert wire.passes(frame)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "x", "10.0.0.1; flush ruleset"), "no address, network or range"),
        (("add", 'x"', "10.0.0.1"), "a set name of 1 to 31 characters"),
        (("add", "x", "10.0.0.9-10.0.0.1"), "no address, network or range"),
        (("add", "x", "10.0.0.1,2001:db8::1"), "addresses of one family"),
        (("add", "x", "::1,::2,::3,::4,::5"), "up to 6 of IPv4 or 4 of IPv6"),
        (("delete", "x", "10.0.0.1"), "no set 'x'"),
        (("flush", "nothing"), "no set 'nothing'"),
        (("list", "nothing"), "no set 'nothing'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_done(wire: Wire, words: tuple[str, ...], said: str) -> None:
    """A wrong word is refused in one line."""
    wire.configure()
    error = run_set(wire, *words, status=1)
    assert said in error
    assert error.count("\n") == 1
