"""Verdicts that a take-over changes are told before it, with frames of the guest's own filters; others aren't."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nwfilter_hook.config import parse_config
from nwfilter_hook.filters.model import Filter
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.host import Host, open_host
from nwfilter_hook.libvirtd import LibvirtGuest
from nwfilter_hook.operations.adopt_survey import Survey
from nwfilter_hook.operations.verdicts import MAX_LINES, differing
from tests.support.domains import domain, interface, uuid_of

STOCK = Path(__file__).parents[3] / "filters"
DROP_ALL = "<rule action='drop' direction='inout' priority='1000'/>"
PARAMETERS = [
    ("IP", "10.0.0.1"),
    ("IPV6", "2001:db8::1"),
    ("GATEWAY_MAC", "52:54:00:00:00:99"),
    ("DHCPSERVER", "10.0.0.9"),
]


def told(*filters: str, name: str = "f", guests: int = 1, brought: bool = True) -> list[str]:
    """What is said of guests under the last of these filters; `brought`: they come into the library as they are."""
    parsed = [parse_filter(text.encode(), f"libvirt's {number}") for number, text in enumerate(filters)]
    return list(differing(_host(), _survey(parsed, name, guests, brought)))


def _host() -> Host:
    config = parse_config(f"[paths]\nfilter_dirs = /nowhere:{STOCK}\n", "c")
    return open_host(config, print, readonly=True)


def _survey(parsed: list[Filter], name: str, guests: int, brought: bool) -> Survey:
    found = [
        LibvirtGuest(
            uuid_of(f"g{n}"), f"g{n}", True, domain(f"g{n}", [interface(f"vnet{n}", name, PARAMETERS)]).encode()
        )
        for n in range(guests)
    ]
    names = {each.name: each for each in parsed}
    bring = tuple(parsed) if brought else ()
    return Survey(tuple(found), names, {}, frozenset(names), frozenset([name]), bring, (), (), (), (), ())


def rules(text: str, chain: str = "root") -> str:
    return f"<filter name='f' chain='{chain}'>{text}</filter>"


@pytest.mark.parametrize(
    "text",
    [
        "<rule action='drop' direction='out'><tcp match='no' dstportstart='80'/></rule>",
        "<rule action='drop' direction='out'><tcp-ipv6 flags='SYN/SYN'/></rule>",
        "<rule action='drop' direction='out'><ip dscp='46'/></rule>",
        "<rule action='drop' direction='out'>"
        "<arp arpsrcipaddr='10.0.0.0' arpsrcipmask='8' arpdstipaddr='10.1.1.9'/></rule>",
        f"<rule action='accept' direction='inout'><icmp type='8'/></rule>{DROP_ALL.replace('/>', '><all/></rule>')}",
        "<rule action='drop' direction='out'><igmp-ipv6/></rule>",
        "<rule action='drop' direction='out'><all dstmacaddr='52:54:00:00:00:98'/></rule>",
        "<rule action='drop' direction='out'><icmp srcmacaddr='52:54:0:0:0:0' srcmacmask='ff:ff:ff:0:0:0'/></rule>",
        "<rule action='drop' direction='out'><mac dstmacaddr='01:80:c2:00:00:0e'/></rule>",
    ],
)
def test_each_difference_is_told(text: str) -> None:
    """Those of nwfilter-differences(7) that a frame shows."""
    assert told(rules(text)) != []


def test_the_end_of_a_chain() -> None:
    """12: libvirt accepts there what this filter says nothing of; the line names both rules and the frame."""
    accepts = "<rule action='accept' direction='out'><ip protocol='icmp'/></rule>"
    drops = "<rule action='drop' direction='out' priority='500'><ip protocol='udp'/></rule>"
    inner, outer = f"<filter name='inner' chain='ipv4'>{accepts}</filter>", rules(f"<filterref filter='inner'/>{drops}")
    (line,) = told(inner, outer)
    assert line == (
        "g0, vnet0: what it sends, IPv4 from 10.0.0.1 to 198.51.100.9, protocol 17 ports 40000 443, new:"
        " passes under libvirt (libvirt's 0:1), is dropped here (libvirt's 1:1)"
    )


@pytest.mark.parametrize(
    "text",
    [
        "<rule action='drop' direction='out'><tcp dstportstart='80'/></rule>",
        "<rule action='accept' direction='in'><tcp dstportstart='22'/></rule>"
        "<rule action='drop' direction='out'><ip protocol='udp'/></rule>",
        "<rule action='drop' direction='out'><ip srcipaddr='$IP' match='no'/></rule>",
        "<rule action='drop' direction='in'><ip dscp='0'/></rule>",
        "<rule action='accept' direction='out'><icmp type='8'/></rule>",
        "<rule action='drop' direction='out'><arp opcode='Reply' arpsrcipaddr='10.0.0.1'/></rule>",
        "",
    ],
)
def test_what_is_the_same_is_not_told(text: str) -> None:
    assert told(rules(text)) == []


def test_libvirts_stock_filters() -> None:
    """As libvirt ships them, where it is installed, against ours: only what the bridge takes itself."""
    shipped = {path.stem: path.read_text() for path in Path("/usr/share/libvirt/nwfilter").glob("*.xml")}
    assert len(shipped) > 15 or not shutil.which("libvirtd")
    for name in shipped:
        lines = told(*shipped.values(), name=name, brought=False)
        assert [line for line in lines if "01:80:c2" not in line] == [], name


def test_many_guests_and_many_differences() -> None:
    """Guests under the same filter are one line each difference; there are never too many."""
    one = told(rules("<rule action='drop' direction='out'><ip dscp='46'/></rule>"), guests=300)
    assert one[0].startswith("g0, vnet0; g1, vnet1; g2, vnet2; g3, vnet3; g4, vnet4 and 295 more: ")
    text = "\n".join(f"<rule action='drop' direction='out'><ip dscp='{each}'/></rule>" for each in range(1, 64))
    assert 1 < len(told(rules(text))) <= MAX_LINES
