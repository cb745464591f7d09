"""
Filters compile to what libvirt's own driver makes of them.

libvirt's test suite has filters with the firewall commands that its driver issues for each. They are not part of this
repository; where they lie beside it, all are compared. The filters below are our own, of the same kind, their commands
derived by hand from https://libvirt.org/formatnwfilter.html; they are compared everywhere.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from nwfilter_hook.base.addresses import parse_mac
from nwfilter_hook.base.errors import Source
from nwfilter_hook.compiler.compile import compile_tap
from nwfilter_hook.filters.model import Filter
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.filters.resolve import resolve
from nwfilter_hook.ruleset.model import Attachment, Ruleset
from nwfilter_hook.storage.library import Library
from tests.unit.compiling import MAC, TAP, reference_to, spelled
from tests.unit.firewall_commands import expected_rules

REPOSITORY = Path(__file__).parents[3]
LIBVIRT_FILTERS = REPOSITORY.parent / "shared" / "corpus" / "libvirt-filters"
# what libvirt's test suite sets for each of its filters
PARAMETERS = {
    "IPSETNAME": "tck_test",
    "A": ("1.1.1.1", "2.2.2.2", "3.3.3.3", "3.3.3.3"),
    "B": ("80", "90", "80", "80"),
    "C": ("1080", "1090", "1100", "1110"),
}


def compile_file(data: bytes, path: str) -> Ruleset:
    """The filter in `data` compiled for TAP; what it refers to comes from the stock filters."""
    own = parse_filter(data, path)
    stock = Library([str(REPOSITORY / "filters")])

    def read(name: str, wanted_by: Source) -> Filter:
        return own if name == own.name else stock.read(name, wanted_by)

    parameters = {**PARAMETERS, "IP": "192.0.2.7"}
    rules = resolve(reference_to(own.name, parameters), MAC, read)
    return compile_tap(TAP, Attachment.BRIDGE_PORT, parse_mac(MAC), rules, ingress=False)


def as_sets(trees: dict[str, list[str]]) -> dict[str, list[str]]:
    """
    The order of conditions within a rule means nothing: sort them; the verdict stays last. That a rule is for bridged
    packets goes without saying in libvirt's chains (FP).
    """
    return {
        tree: [" ".join([*sorted(set(rule.split()[:-1]) - {"packet-type!=0"}), rule.split()[-1]]) for rule in rules]
        for tree, rules in trees.items()
    }


def test_says_which_filters_are_compared() -> None:
    """Where libvirt's filters aren't there, the test run warns that only ours are compared."""
    if not LIBVIRT_FILTERS.is_dir():
        warnings.warn(
            f"libvirt's own filters are not at {LIBVIRT_FILTERS}: only {len(OURS)} filters of ours are compared "
            "with the commands that libvirt's driver issues",
            stacklevel=1,
        )
    else:
        assert len(list(LIBVIRT_FILTERS.glob("*-linux.args"))) >= 18


def test_dscp_at_layer_2_is_where_we_differ() -> None:
    """libvirt hands ebtables the code point as if it were the whole TOS octet; here it is the code point."""
    xml, commands = OURS["web-server"]
    assert "--ip-tos 0x2e" in commands
    assert "ip-dscp=46" in " ".join(spelled(compile_file(xml.encode(), "web-server.xml"))["to"])


WEB_SERVER = """
<filter name='web-server' chain='root'>
  <rule action='drop' direction='out' priority='-100'>
    <ip match='no' srcipaddr='192.0.2.80' srcipmask='32'/>
  </rule>
  <rule action='accept' direction='in' priority='-50'>
    <ip protocol='udp' dscp='46' dstportstart='5060' dstportend='5061'/>
  </rule>
  <rule action='accept' direction='in' priority='200'>
    <tcp dstipaddr='192.0.2.80' dstportstart='80'/>
  </rule>
  <rule action='accept' direction='in' priority='100'>
    <tcp srcipaddr='198.51.100.0' srcipmask='24' dstportstart='22'/>
  </rule>
  <rule action='accept' direction='out' priority='300'>
    <icmp type='8' code='0'/>
  </rule>
  <rule action='reject' direction='inout' priority='900'>
    <udp/>
  </rule>
  <rule action='drop' direction='inout' priority='1000'>
    <all/>
  </rule>
</filter>
"""
WEB_SERVER_COMMANDS = """\
ebtables -A libvirt-J-vnet0 -p ipv4 --ip-source ! 192.0.2.80/32 -j DROP
ebtables -A libvirt-P-vnet0 -p ipv4 --ip-protocol 17 --ip-destination-port 5060:5061 --ip-tos 0x2e -j ACCEPT
iptables -A FJ-vnet0 -p tcp --destination 198.51.100.0/24 --sport 22 --ctstate ESTABLISHED --ctdir Reply -j RETURN
iptables -A HJ-vnet0 -p tcp --destination 198.51.100.0/24 --sport 22 --ctstate ESTABLISHED --ctdir Reply -j RETURN
iptables -A FP-vnet0 -p tcp --source 198.51.100.0/24 --dport 22 --ctstate NEW,ESTABLISHED --ctdir Original -j ACCEPT
iptables -A FJ-vnet0 -p tcp --source 192.0.2.80 --sport 80 --ctstate ESTABLISHED --ctdir Reply -j RETURN
iptables -A HJ-vnet0 -p tcp --source 192.0.2.80 --sport 80 --ctstate ESTABLISHED --ctdir Reply -j RETURN
iptables -A FP-vnet0 -p tcp --destination 192.0.2.80 --dport 80 --ctstate NEW,ESTABLISHED --ctdir Original -j ACCEPT
iptables -A FJ-vnet0 -p icmp --icmp-type 8/0 --ctstate NEW,ESTABLISHED -j RETURN
iptables -A HJ-vnet0 -p icmp --icmp-type 8/0 --ctstate NEW,ESTABLISHED -j RETURN
iptables -A FJ-vnet0 -p udp -j REJECT
iptables -A HJ-vnet0 -p udp -j REJECT
iptables -A FP-vnet0 -p udp -j REJECT
iptables -A FJ-vnet0 -p all -j DROP
iptables -A HJ-vnet0 -p all -j DROP
iptables -A FP-vnet0 -p all -j DROP
"""

MAIL_IPV6 = """
<filter name='mail-ipv6'>
  <rule action='accept' direction='inout' statematch='false'>
    <tcp-ipv6 srcipaddr='2001:db8:25::' srcipmask='48' dstportstart='25' dscp='10'/>
  </rule>
  <rule action='accept' direction='out'>
    <tcp-ipv6 state='NEW,RELATED' srcmacaddr='52:54:0:0:0:1' dstportstart='587' dstportend='587'/>
  </rule>
  <rule action='drop' direction='in'>
    <all-ipv6 match='no' srcmacaddr='52:54:00:00:00:fe'/>
  </rule>
</filter>
"""
MAIL_IPV6_COMMANDS = """\
ip6tables -A FJ-vnet0 -p tcp --destination 2001:db8:25::/48 --sport 25 --dscp 10 -j RETURN
ip6tables -A HJ-vnet0 -p tcp --destination 2001:db8:25::/48 --sport 25 --dscp 10 -j RETURN
ip6tables -A FP-vnet0 -p tcp --source 2001:db8:25::/48 --dport 25 --dscp 10 -j ACCEPT
ip6tables -A FJ-vnet0 -p tcp --mac-source 52:54:00:00:00:01 --dport 587 --ctstate NEW,RELATED -j RETURN
ip6tables -A HJ-vnet0 -p tcp --mac-source 52:54:00:00:00:01 --dport 587 --ctstate NEW,RELATED -j RETURN
ip6tables -A FP-vnet0 -p all ! --mac-source 52:54:00:00:00:fe -j DROP
"""

LISTS = """
<filter name='lists'>
  <rule action='accept' direction='out'>
    <udp srcipaddr='$A' dstportstart='$B'/>
  </rule>
  <rule action='accept' direction='in' statematch='false'>
    <tcp srcipaddr='$A[1]' srcportstart='$C[3]'/>
  </rule>
</filter>
"""
LISTS_COMMANDS = """\
iptables -A FJ-vnet0 -p udp --source 1.1.1.1 --dport 80 --ctstate NEW,ESTABLISHED --ctdir Original -j RETURN
iptables -A HJ-vnet0 -p udp --source 1.1.1.1 --dport 80 --ctstate NEW,ESTABLISHED --ctdir Original -j RETURN
iptables -A FP-vnet0 -p udp --destination 1.1.1.1 --sport 80 --ctstate ESTABLISHED --ctdir Reply -j ACCEPT
iptables -A FJ-vnet0 -p udp --source 2.2.2.2 --dport 90 --ctstate NEW,ESTABLISHED --ctdir Original -j RETURN
iptables -A HJ-vnet0 -p udp --source 2.2.2.2 --dport 90 --ctstate NEW,ESTABLISHED --ctdir Original -j RETURN
iptables -A FP-vnet0 -p udp --destination 2.2.2.2 --sport 90 --ctstate ESTABLISHED --ctdir Reply -j ACCEPT
iptables -A FJ-vnet0 -p udp --source 3.3.3.3 --dport 80 --ctstate NEW,ESTABLISHED --ctdir Original -j RETURN
iptables -A HJ-vnet0 -p udp --source 3.3.3.3 --dport 80 --ctstate NEW,ESTABLISHED --ctdir Original -j RETURN
iptables -A FP-vnet0 -p udp --destination 3.3.3.3 --sport 80 --ctstate ESTABLISHED --ctdir Reply -j ACCEPT
iptables -A FJ-vnet0 -p tcp --destination 2.2.2.2 --dport 1110 -j RETURN
iptables -A HJ-vnet0 -p tcp --destination 2.2.2.2 --dport 1110 -j RETURN
iptables -A FP-vnet0 -p tcp --source 2.2.2.2 --sport 1110 -j ACCEPT
"""

QUIET_ARP = """
<filter name='quiet-arp'>
  <rule action='drop' direction='out' priority='10'>
    <arp match='no' srcmacaddr='52:54:0:0:0:1'/>
    <arp opcode='Reply' hwtype='1' protocoltype='0x800'/>
  </rule>
  <rule action='accept' direction='in'>
    <arp dstmacaddr='52:54:00:00:00:00' dstmacmask='ff:ff:ff:ff:00:00' arpdstmacaddr='52:54:00:00:00:01'/>
  </rule>
  <rule action='accept' direction='out'>
    <mac protocolid='0x88cc' dstmacaddr='1:80:c2:0:0:e'/>
  </rule>
</filter>
"""
QUIET_ARP_COMMANDS = """\
ebtables -A libvirt-J-vnet0 -s ! 52:54:00:00:00:01 -p 0x806 --arp-opcode 2 --arp-htype 1 --arp-ptype 0x800 -j DROP
ebtables -A libvirt-P-vnet0 -d 52:54:00:00:00:00/ff:ff:ff:ff:00:00 -p 0x806 --arp-mac-dst 52:54:00:00:00:01 -j ACCEPT
ebtables -A libvirt-J-vnet0 -d 01:80:c2:00:00:0e -p 0x88cc -j ACCEPT
"""

OURS = {
    "web-server": (WEB_SERVER, WEB_SERVER_COMMANDS),
    "mail-ipv6": (MAIL_IPV6, MAIL_IPV6_COMMANDS),
    "lists": (LISTS, LISTS_COMMANDS),
    "quiet-arp": (QUIET_ARP, QUIET_ARP_COMMANDS),
}


REFERRING = """
<filter name='referring'>
  <filterref filter='clean-traffic'/>
  <rule action='accept' direction='out'><mac srcmacaddr='1:2:3:4:5:6' protocolid='arp'/></rule>
  <rule action='accept' direction='out'><tcp dstipaddr='10.1.2.3'/></rule>
</filter>
"""


def cases() -> dict[str, tuple[bytes, str]]:
    """Filter and commands by name: ours, and libvirt's where they are."""
    found = {name: (xml.encode(), commands) for name, (xml, commands) in OURS.items()}
    for path in sorted(LIBVIRT_FILTERS.glob("*-linux.args")):
        name = path.name.replace("-linux.args", "")
        found[f"libvirt's {name}"] = path.with_name(f"{name}.xml").read_bytes(), path.read_text()
    return found


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_compiles_to_what_libvirts_driver_makes_of_it(name: str) -> None:
    """A filter compiles to the rules that the commands of libvirt's driver make, in their order."""
    xml, commands = CASES[name]
    assert as_sets(spelled(compile_file(xml, f"{name}.xml"))) == expected_rules(commands)


def test_filters_that_refer_to_a_stock_filter() -> None:
    """A filter that refers to clean-traffic holds its rules, and those of its own beside them."""
    files = {path.stem: path.read_bytes() for path in LIBVIRT_FILTERS.glob("ref*.xml")}
    for name, data in {"referring": REFERRING.encode(), **files}.items():
        trees = spelled(compile_file(data, f"{name}.xml"))
        assert "ether-type=0x800 ip-src=192.0.2.7 return" in trees["from/ipv4-ip"]
        assert trees["from"][-1] == trees["to"][-1] == "drop"
        has_own = name != "ref"
        assert ("ether-src=01:02:03:04:05:06 ether-type=0x806 accept" in trees["from"]) == has_own
        assert ("from-l3" in trees) == has_own
