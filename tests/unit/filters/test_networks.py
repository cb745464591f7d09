"""Networks as parameters: where an address stands without a mask of its own, and what is refused."""

from __future__ import annotations

import pytest

from nwfilter_hook.base.errors import BadValue, FilterSyntaxError, InputError, Source
from nwfilter_hook.domain.binding import parse_binding
from nwfilter_hook.domain.parse import parse_domain
from nwfilter_hook.filters.parse import check_parameter
from tests.unit.compiling import compiled_rule, spelled

IP, IPV6 = "192.0.2.8/29", "2001:db8:7::/64"


def conditions(protocol: str, **parameters: object) -> list[str]:
    """What a rule asks of a frame, for each rule that it becomes, without what the element asks."""
    (rules,) = spelled(compiled_rule(protocol, parameters=parameters)).values()  # type: ignore[arg-type]
    addresses = ("ip-", "ip6-src", "ip6-dst", "arp-src-ip", "arp-dst-ip", "nd-target")
    return [" ".join(word for word in rule.split() if word.startswith(addresses)) for rule in rules]


@pytest.mark.parametrize(
    ("protocol", "condition"),
    [
        ("<ip srcipaddr='$IP'/>", "ip-src&255.255.255.248=192.0.2.8"),
        ("<ip dstipaddr='$IP' match='no'/>", "ip-dst&255.255.255.248!=192.0.2.8"),
        ("<arp arpsrcipaddr='$IP'/>", "arp-src-ip&255.255.255.248=192.0.2.8"),
        ("<arp arpdstipaddr='$IP'/>", "arp-dst-ip&255.255.255.248=192.0.2.8"),
        ("<rarp arpdstipaddr='$IP'/>", "arp-dst-ip&255.255.255.248=192.0.2.8"),
        ("<ipv6 srcipaddr='$IPV6'/>", "ip6-src&ffff:ffff:ffff:ffff::=2001:db8:7::"),
        ("<ipv6 ndtarget='$IPV6'/>", "nd-target&ffff:ffff:ffff:ffff::=2001:db8:7::"),
        ("<ipv6 ndtarget='$IPV6' match='no'/>", "nd-target&ffff:ffff:ffff:ffff::!=2001:db8:7::"),
        ("<ip srcipaddr='$IP[0]'/>", "ip-src&255.255.255.248=192.0.2.8"),
        # a mask of the other address is none beside it
        (
            "<ip srcipaddr='$IP' dstipaddr='10.0.0.0' dstipmask='8'/>",
            "ip-src&255.255.255.248=192.0.2.8 ip-dst&255.0.0.0=10.0.0.0",
        ),
    ],
)
def test_where_an_address_stands(protocol: str, condition: str) -> None:
    """Every address without a mask beside it may be a network, whatever the element, the sign, the access."""
    assert conditions(protocol, IP=IP, IPV6=IPV6) == [condition]


@pytest.mark.parametrize("element", ["tcp", "udp-ipv6", "all", "icmpv6"])
def test_in_both_directions_of_layer_3(element: str) -> None:
    """The mirrored half of a rule asks for the network as well, on the other side."""
    value, name = (IPV6, "ip6") if "v6" in element else (IP, "ip")
    chains = spelled(compiled_rule(f"<{element} srcipaddr='$NET'/>", parameters={"NET": value}))
    assert [f"{name}-src&" in rule for rule in chains["from-l3"]] == [True]
    assert [f"{name}-dst&" in rule for rule in chains["to-l3"]] == [True]


def test_lists_may_mix() -> None:
    """Addresses and networks in one list; one of full length is an address, one of length 0 is every address."""
    values = ("192.0.2.8/29", "198.51.100.7", "198.51.100.9/32", "0.0.0.0/0")
    assert conditions("<ip srcipaddr='$IP'/>", IP=values) == [
        "ip-src&255.255.255.248=192.0.2.8",
        "ip-src=198.51.100.7",
        "ip-src=198.51.100.9",
        "",
    ]


@pytest.mark.parametrize(
    ("protocol", "value", "message"),
    [
        (
            "<ip srcipaddr='$P' srcipmask='24'/>",
            "192.0.2.8/29",
            "srcipmask stands beside it; keep the mask and give 192.0.2.8, or keep the network and remove srcipmask",
        ),
        ("<ip srcipaddr='$P' srcipmask='$M'/>", "192.0.2.8/29", "srcipmask stands beside it"),
        ("<ip srcipaddr='$P'/><ip match='no' srcipmask='24'/>", "192.0.2.8/29", "srcipmask stands beside it"),
        ("<arp arpdstipaddr='$P' arpdstipmask='24'/>", "192.0.2.8/29", "remove arpdstipmask"),
        (
            "<all srcipfrom='$P' srcipto='192.0.2.20'/>",
            "192.0.2.8/29",
            "it is not one address, as a range begins and ends with",
        ),
        (
            "<all dstipfrom='192.0.2.1' dstipto='$P'/>",
            "192.0.2.8/29",
            "it is not one address, as a range begins and ends with",
        ),
        ("<all srcipfrom='$P'/>", "192.0.2.8/29", "it is not one address, as a range begins and ends with"),
        (
            "<ip srcipaddr='$P'/>",
            "192.0.2.9/29",
            "it is not the first address of a network: write 192.0.2.8/29 for all of it, or 192.0.2.9 for one",
        ),
        ("<ipv6 srcipaddr='$P'/>", "2001:db8::1/64", "write 2001:db8::/64 for all of it, or 2001:db8::1 for one"),
        ("<ip srcipaddr='$P'/>", "192.0.2.0/33", "an IPv4 network such as 192.0.2.8/29, its length from 0 to 32"),
        ("<ipv6 srcipaddr='$P'/>", "2001:db8::/129", "such as 2001:db8:7::/64, its length from 0 to 128"),
        ("<ip srcipaddr='$P'/>", "2001:db8::/64", "it is not an IPv4 network such as 192.0.2.8/29"),
        ("<ipv6 srcipaddr='$P'/>", "192.0.2.0/24", "it is not an IPv6 network such as 2001:db8:7::/64"),
        ("<ip srcipaddr='$P'/>", "web/24", "it is not an IPv4 network such as 192.0.2.8/29"),
        ("<ip srcipaddr='10.0.0.0' srcipmask='$P'/>", "255.0.0.0/8", "srcipmask on <ip>"),
        ("<tcp dstportstart='$P'/>", "80/29", "dstportstart on <tcp>"),
        ("<mac srcmacaddr='$P'/>", "2:0:0:0:0:1/24", "srcmacaddr on <mac>"),
        ("<all ipset='$P'/>", "a/24", "ipset on <all>"),
    ],
)
def test_where_no_network_goes(protocol: str, value: str, message: str) -> None:
    """A mask beside it, a range, another type, host bits, a wrong length, the other family: said, with the mend."""
    with pytest.raises(BadValue) as caught:
        compiled_rule(protocol, parameters={"P": value, "M": "24"})
    assert str(caught.value).startswith(f"domain.xml:1: parameter P: '{value}' can't be ")
    assert message in str(caught.value)


METADATA = """<domain><name>web</name><uuid>11111111-2222-3333-4444-555555555555</uuid><metadata>
<nwf:bindings xmlns:nwf="https://nwfilter-hook.org/xmlns/1"><nwf:interface mac="52:54:00:00:00:01">{}</nwf:interface>
</nwf:bindings></metadata><devices><interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/>{}
</interface></devices></domain>"""
REFERENCE = "<filterref filter='clean-traffic'><parameter name='IP' value='{}'/></filterref>"
BINDING = (
    "<filterbinding><owner><name>x</name></owner><portdev name='t'/><mac address='2:0:0:0:0:1'/>{}</filterbinding>"
)


def test_who_may_give_one() -> None:
    """Metadata, a binding by hand and -p may hold a network; the element that libvirt reads drops it."""
    (interface,) = parse_domain(METADATA.format(REFERENCE.format(IP), "").encode(), "d").interfaces
    assert interface.reference
    assert interface.reference.parameters == {"IP": (IP,)}
    (tap,) = parse_binding(BINDING.format(REFERENCE.format(IPV6)).encode(), "b").interfaces
    assert tap.reference
    assert tap.reference.parameters == {"IP": (IPV6,)}
    plain = METADATA.replace("{}</nwf", REFERENCE.format("10.0.0.1") + "</nwf").format(REFERENCE.format(IP))
    with pytest.raises(
        FilterSyntaxError, match=r"^d:3: .*'192.0.2.8/29' .*; libvirt drops a network here: give it in <meta"
    ):
        parse_domain(plain.encode(), "d")


@pytest.mark.parametrize(
    "value", ["", "/", "/29", "192.0.2.0/", "192.0.2.0/29/3", "192.0.2.0/255.255.255.0", "10.0.0.1,/8", "a/-1"]
)
def test_what_is_no_network(value: str) -> None:
    """A length is decimal digits, and stands behind something."""
    with pytest.raises(InputError, match=r"may only hold A-Z a-z 0-9 _ . : and, in a network, a length such as /29"):
        check_parameter("IP", value, Source("-p", 1), networks=True)
