"""Where a refusal has an obvious mend it says it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nwfilter_hook.base.errors import InputError
from nwfilter_hook.filters.mends import value_meant
from nwfilter_hook.filters.types import TYPES
from nwfilter_hook.operations.validate import validate
from tests.unit.compiling import compiled, filter_xml, rule_xml


def message(text: str) -> str:
    """What is said against a filter."""
    with pytest.raises(InputError) as caught:
        compiled(text)
    return str(caught.value)


VALUES = (
    # an address, its mask, a range, the other version
    ("<tcp srcipaddr='10.0.0.0/8'/>", "write srcipaddr='10.0.0.0' srcipmask='8'"),
    ("<tcp srcipaddr='10.0.0.0/255.0.0.0'/>", "write srcipaddr='10.0.0.0' srcipmask='255.0.0.0'"),
    ("<tcp srcipaddr='10.0.0.0/0.255.255.255'/>", "write srcipaddr='10.0.0.0' srcipmask='255.0.0.0'"),
    ("<all-ipv6 dstipaddr='2001:db8::/32'/>", "write dstipaddr='2001:db8::' dstipmask='32'"),
    ("<mac srcmacaddr='52:54:00:00:00:00/ff:ff:ff:00:00:00'/>", "srcmacaddr='52:54:00:00:00:00' srcmacmask='ff:ff:"),
    ("<udp srcipaddr='10.0.0.1-10.0.0.9'/>", "write srcipfrom='10.0.0.1' srcipto='10.0.0.9'"),
    ("<udp srcipaddr=' 10.0.0.1 '/>", "write srcipaddr='10.0.0.1'"),
    ("<udp srcipaddr='10.0.0.1,10.0.0.2'/>", "write a rule for each, or a variable whose parameter is repeated"),
    ("<tcp srcipaddr='2001:db8::1'/>", "it goes with <tcp-ipv6>"),
    ("<icmpv6 srcipaddr='10.0.0.1'/>", "it goes with <icmp>"),
    ("<ip dstipaddr='2001:db8::/32'/>", "it goes with <ipv6>"),
    ("<ipv6 dstipaddr='fe80::1%eth0'/>", "write dstipaddr='fe80::1'"),
    ("<ipv6 dstipaddr='[2001:db8::1]'/>", "write dstipaddr='2001:db8::1'"),
    ("<udp srcipaddr='any'/>", "without srcipaddr any will do"),
    ("<ip srcipaddr='10.0.0.0' srcipmask='/8'/>", "write srcipmask='8'"),
    ("<ip srcipaddr='10.0.0.0' srcipmask='0.0.0.255'/>", "write srcipmask='255.255.255.0'"),
    ("<mac srcmacaddr='52-54-00-AA-bb-cc'/>", "write srcmacaddr='52:54:00:aa:bb:cc'"),
    ("<mac srcmacaddr='5254.00aa.bbcc'/>", "write srcmacaddr='52:54:00:aa:bb:cc'"),
    ("<mac srcmacaddr='52:54:0:0:0:0' srcmacmask='24'/>", "write srcmacmask='ff:ff:ff:00:00:00'"),
    # ports and numbers
    ("<tcp dstportstart='ssh'/>", "write dstportstart='22'"),
    ("<tcp dstportstart='22' dstportend='https'/>", "write dstportend='443'"),
    ("<tcp dstportstart='80-90'/>", "write dstportstart='80' dstportend='90'"),
    ("<tcp srcportstart='80:90'/>", "write srcportstart='80' srcportend='90'"),
    ("<tcp dstportstart='80,443'/>", "write a rule for each, or a variable whose parameter is repeated"),
    ("<tcp dstportstart=''/>", "without dstportstart any will do"),
    ("<tcp dstportstart='90' dstportend='80'/>", "exchange them"),
    ("<tcp connlimit-above='0x10'/>", "write connlimit-above='16'"),
    ("<icmp type='echo-request'/>", "write type='8'"),
    ("<icmpv6 type='Router_Advertisement'/>", "write type='134'"),
    ("<ipv6 type='133-137'/>", "write type='133' typeend='137'"),
    ("<ipv6 type='9' typeend='8'/>", "exchange them"),
    ("<ip protocol='gre'/>", "write protocol='47'"),
    ("<ip protocol='tpc'/>", "did you mean 'tcp'?"),
    ("<mac protocolid='0800'/>", "write protocolid='0x0800'"),
    ("<mac protocolid='ip'/>", "write protocolid='ipv4'"),
    ("<arp opcode='Requst'/>", "did you mean 'request'?"),
    ("<arp gratuitous='True'/>", "write gratuitous='true'"),
    ("<arp gratuitous='off'/>", "write gratuitous='false'"),
    # lists
    ("<tcp state='new;established'/>", "write state='NEW,ESTABLISHED'"),
    ("<tcp state='ESTABLISH'/>", "did you mean 'ESTABLISHED'?"),
    ("<tcp flags='SYN'/>", "write flags='SYN/SYN'"),
    ("<tcp flags='/SYN'/>", "write flags='SYN/SYN'"),
    ("<tcp flags='syn+ack/syn'/>", "write flags='SYN,ACK/SYN'"),
    ("<tcp ipset='x' ipsetflags='source,destination'/>", "write ipsetflags='src,dst'"),
    ("<tcp ipset='x' ipsetflags='src dst'/>", "write ipsetflags='src,dst'"),
    ("<tcp ipset='my/set'/>", "write ipset='my-set'"),
    # variables, and what goes together
    ("<tcp srcipaddr='${IP}'/>", "write $IP"),
    ("<tcp srcipaddr='$IP '/>", "write $IP"),
    ("<ipv6 protocol='tcp' type='133'/>", "write that, or no protocol"),
    ("<all-ipv6 ipset='x' ipsetflags='src,src,src,src,src'/>", "more than the 4 that a key of a set can hold"),
    # names
    ("<tcp dport='22'/>", "did you mean 'dstportstart'?"),
    ("<tcp DstPortStart='22'/>", "did you mean 'dstportstart'?"),
    ("<tcp saddr='10.0.0.1'/>", "did you mean 'srcipaddr'?"),
    ("<arp srcip='10.0.0.1'/>", "did you mean 'arpsrcipaddr'?"),
    ("<tcp6/>", "did you mean 'tcp-ipv6'?"),
    ("<TCP/>", "did you mean 'tcp'?"),
    ("<ipv4/>", "did you mean 'ip'?"),
    ("<tcp match='true'/>", "write 'yes'"),
    ("<tcp match='NO'/>", "write 'no'"),
)


@pytest.mark.parametrize(("protocol", "mend"), VALUES, ids=[protocol for protocol, _ in VALUES])
def test_a_protocol(protocol: str, mend: str) -> None:
    """At the end of the message, behind what is wrong."""
    assert mend in message(filter_xml(rule_xml(protocol))).split(": ", 1)[1]


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        (filter_xml(rule_xml("<tcp/>", action="ACCEPT")), "did you mean 'accept'?"),
        (filter_xml(rule_xml("<tcp/>", action="allow")), "did you mean 'accept'?"),
        (filter_xml(rule_xml("<tcp/>", direction="both")), "did you mean 'inout'?"),
        (filter_xml(rule_xml("<tcp/>", direction="ingress")), "did you mean 'in'?"),
        (filter_xml(rule_xml("<tcp/>", statematch="no")), "write 'false'"),
        (filter_xml(rule_xml("<tcp/>", priority="100 ")), "write '100'"),
        (filter_xml(chain="ip"), "did you mean 'ipv4'?"),
        (filter_xml(chain="IPV6-x"), "did you mean 'ipv6-x'?"),
        (filter_xml(chain="arp-of-the-guest"), "did you mean 'arp-of-the-g'?"),
        (filter_xml(chain="rot"), "did you mean 'root'?"),
        (filter_xml("<uuid>{52fc6d8f-1ffc-4e36-9b46-bbc16dfc0cd3}</uuid>"), "without the braces"),
        (filter_xml(name="my filter"), "did you mean 'my-filter'?"),
        (filter_xml("<filterref filter='x'><parameter name='MY-IP' value='1'/></filterref>"), "did you mean 'MY_IP'?"),
        (filter_xml("<filterref filter='x'><parameter name='$IP' value='1'/></filterref>"), "did you mean 'IP'?"),
        (
            filter_xml("<filterref filter='x'><parameter name='M' value='52-54-00-00-00-01'/></filterref>"),
            "write 52:54:00:00:00:01",
        ),
        (filter_xml("<filterref filter='x'><parameter name='M' value='1 2'/></filterref>"), "repeat the parameter"),
        ("<domain name='f'/>", "this is a guest"),
        ("<rule name='f'/>", "put it into <filter name='…'>"),
        (filter_xml(rule_xml("<stp srcmacaddr='2:0:0:0:0:1'/>", direction="inout")), "a rule each for 'in' and 'out'"),
    ],
)
def test_the_rest_of_a_filter(text: str, mend: str) -> None:
    """Likewise."""
    with pytest.raises(InputError) as caught:
        validate(text.encode(), "f.xml")
    assert mend in str(caught.value)


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("text", ["", "/", "-", ",", "x" * 5000, "$(", "12345678901234567890", "\u0663", "a;b|c", "/8"])
def test_what_is_proposed_is_taken(type_name: str, text: str) -> None:
    """Whatever was written."""
    meant = value_meant(TYPES[type_name], text)
    if meant is not None:
        TYPES[type_name].parse(meant)


@pytest.mark.parametrize("protocol", ["<tcp dstportstart='70000'/>", "<ip srcipaddr='10.1'/>", "<tcp flags='ALL'/>"])
def test_nothing_is_proposed_where_nothing_is_plain(protocol: str) -> None:
    """A guess would be worse than none."""
    said = message(filter_xml(rule_xml(protocol)))
    assert "write " not in said
    assert "did you mean" not in said


def test_a_hook_whose_filters_are_right_does_without() -> None:
    """It isn't even loaded."""
    program = (
        "import sys; from nwfilter_hook.filters.parse import parse_filter; "
        "parse_filter(b\"<filter name='f'><rule action='drop' direction='in'><tcp/></rule></filter>\", 'f.xml'); "
        "sys.exit('nwfilter_hook.filters.mends' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
