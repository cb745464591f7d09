"""Domain XML: the guest, its interfaces, and the reference that applies to each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from nwfilter_hook.base.errors import DomainError, FilterSyntaxError, InputError, Source, XmlSyntaxError
from nwfilter_hook.config import Default, parse_config
from nwfilter_hook.domain.model import Carrier, Interface, PortKind, check_tap
from nwfilter_hook.domain.parse import parse_domain, parse_identity
from nwfilter_hook.filters.model import FilterRef

EVENTS = Path(__file__).parents[2] / "data" / "hook-events"
UUID = "11111111-2222-3333-4444-555555555555"
MAC = "52:54:00:00:00:01"


def domain(*interfaces: str, metadata: str = "", uuid: str = UUID, name: str = "web") -> bytes:
    """A domain XML with `interfaces` on lines of their own from line 2 on."""
    body = "\n".join(interfaces)
    return (
        f"<domain type='kvm'><name>{name}</name><uuid>{uuid}</uuid><metadata>{metadata}</metadata><devices>\n"
        f"{body}</devices></domain>"
    ).encode()


def interface(*, kind: str = "bridge", mac: str = MAC, tap: str = "vnet0", inside: str = "", source: str = "") -> str:
    """An <interface>."""
    target = f"<target dev='{tap}'/>" if tap else ""
    return f"<interface type='{kind}'><mac address='{mac}'/>{source}{target}{inside}</interface>"


def binding(selector: str, reference: str = "<filterref filter='f'/>") -> str:
    """Our element in <metadata> with one interface."""
    return (
        "<nwf:bindings xmlns:nwf='https://nwfilter-hook.org/xmlns/1'>"
        f"<nwf:interface {selector}>{reference}</nwf:interface></nwf:bindings>"
    )


BR0 = Default("bridge", "br0", "default", (), "conf", 7)
FILTERED = "<filterref filter='clean-traffic'><parameter name='IP' value='192.0.2.7'/></filterref>"


def only(data: bytes, defaults: Sequence[Default] = ()) -> Interface:
    """The only interface of a domain."""
    (found,) = parse_domain(data, "d.xml", defaults).interfaces
    return found


def test_a_guest_as_libvirt_describes_it() -> None:
    """The recorded guest with five interfaces is read as it is: names, kinds, bridges, references, parameters."""
    (path,) = EVENTS.glob("05.qemu.*.start.begin.xml")
    found = parse_domain(path.read_bytes(), "d.xml")
    assert found.name == "web-01"
    assert [(each.type, each.kind, each.tap, each.bridge) for each in found.interfaces] == [
        ("bridge", PortKind.BRIDGE, "vnet0", "br0"),
        ("network", PortKind.BRIDGE, "vnet1", "virbr7"),
        ("ethernet", PortKind.ETHERNET, "tap-eth0", None),
        ("direct", PortKind.MACVTAP, "macvtap0", None),  # its filterref libvirt has dropped
        ("bridge", PortKind.BRIDGE, "web-01-plain", "br0"),
    ]
    assert [each.reference and (each.reference.filter, each.reference.parameters) for each in found.interfaces] == [
        ("clean-traffic", {"IP": ("10.0.0.1", "10.0.0.2")}),
        ("clean-traffic", {}),
        ("no-mac-spoofing", {}),
        None,
        None,
    ]


def test_a_stopped_guest_has_no_generated_tap_names() -> None:
    """What libvirt sends at `stopped` is readable too, although it names no generated tap."""
    (path,) = EVENTS.glob("07.qemu.*.stopped.end.xml")
    taps = [each.tap for each in parse_domain(path.read_bytes(), "d.xml").interfaces]
    assert taps[0] is None


def test_a_reference_with_parameters() -> None:
    """A filterref keeps its parameters as lists, in order, and its line."""
    reference = (
        "<filterref filter='f'><parameter name='IP' value='192.0.2.1'/><parameter name='IP' value='192.0.2.2'/>"
        "<parameter name='PORT' value='22'/></filterref>"
    )
    found = only(domain("", interface(inside=reference)))
    assert found.reference == FilterRef("f", {"IP": ("192.0.2.1", "192.0.2.2"), "PORT": ("22",)}, Source("d.xml", 3))
    assert found.carrier is Carrier.FILTERREF


def test_an_interface_without_a_reference() -> None:
    """No filterref is no filter."""
    assert only(domain(interface())).reference is None


@pytest.mark.parametrize("attributes", ["", " filter=''", " filtr='x'", " filter='' name='x'"])
@pytest.mark.parametrize(("tap", "shown"), [("vnet0", "vnet0"), ("", MAC)])
def test_a_reference_that_names_no_filter(attributes: str, tap: str, shown: str) -> None:
    """A filterref without a filter's name is an error that names the interface, and no default stands in for it."""
    inside = f"\n<filterref{attributes}/>"
    data = domain(interface(tap=tap, inside=inside, source="<source bridge='br0'/>"))
    with pytest.raises(DomainError) as caught:
        parse_domain(data, "d.xml", [BR0])
    message = f"interface {shown}: <filterref{attributes}> names no filter; write <filterref filter='NAME'>"
    assert str(caught.value) == f"d.xml:3: {message}"


def test_a_reference_in_a_comment_is_none() -> None:
    """Nor is one in an instruction or in CDATA; what is deep in somebody's metadata is nobody's business."""
    hidden = f"<!-- {FILTERED} --><?filterref filter='f'?><x><![CDATA[{FILTERED}]]></x>{'<x>' * 200}{'</x>' * 200}"
    assert only(domain(interface(inside="<!-- <filterref filter='f'/> -->"), metadata=hidden)).reference is None


def test_a_second_reference() -> None:
    """Of two filterrefs none is passed over."""
    with pytest.raises(DomainError, match=r"^d.xml:3: interface vnet0 has a second <filterref>$"):
        parse_domain(domain(interface(inside=f"{FILTERED}\n<filterref filter='f'/>")), "d.xml")


@pytest.mark.parametrize(
    ("inside", "where"),
    [
        ("filterref filter='f'/>", "interface"),
        ("<model type='virtio'/>filterref filter='f'/>", "interface"),
        ("<filterref filter='f'>parameter name='IP' value='192.0.2.1'/></filterref>", "filterref"),
    ],
)
def test_text_where_a_reference_may_stand(inside: str, where: str) -> None:
    """A filterref or a parameter that lost its "<" isn't passed over."""
    with pytest.raises(FilterSyntaxError, match=rf"^d.xml:2: text .* in <{where}>: no text goes in there"):
        parse_domain(domain(interface(inside=inside)), "d.xml")


@pytest.mark.parametrize(
    ("text", "kind", "bridge"),
    [
        (interface(kind="bridge", source="<source bridge='br0'/>"), PortKind.BRIDGE, "br0"),
        (interface(kind="network", source="<source network='n' bridge='virbr0'/>"), PortKind.BRIDGE, "virbr0"),
        (interface(kind="network", source="<source network='n' dev='eth0' mode='bridge'/>"), PortKind.MACVTAP, None),
        (interface(kind="direct", source="<source dev='eth0' mode='vepa'/>"), PortKind.MACVTAP, None),
    ],
)
def test_what_an_interface_is_underneath(text: str, kind: PortKind, bridge: str | None) -> None:
    """The kind is what the host end really is: a network may hand out a bridge port or a macvtap."""
    found = only(domain(text))
    assert (found.kind, found.bridge) == (kind, bridge)


NETWORK = {
    "waiting": ("network", "<source network='n'/>"),
    "bridged": ("network", "<source network='n' bridge='virbr0'/>"),
    "macvtap": ("network", "<source network='n' dev='eth0' mode='vepa'/>"),
}
"""A `network` interface before libvirt has asked the network, and with what the network may have given."""
PORTS = ("", "openvswitch", "802.1Qbg", "802.1Qbh", "midonet", "something-new")
FILTERABLE_PORTS = {
    "bridge": {"": PortKind.BRIDGE, "openvswitch": PortKind.OPENVSWITCH},
    "bridged": {"": PortKind.BRIDGE, "openvswitch": PortKind.OPENVSWITCH},
    "direct": dict.fromkeys(("", "802.1Qbg", "802.1Qbh"), PortKind.MACVTAP),
    "macvtap": dict.fromkeys(("", "802.1Qbg", "802.1Qbh"), PortKind.MACVTAP),
    "waiting": {
        "": PortKind.BRIDGE,
        "openvswitch": PortKind.OPENVSWITCH,
        **dict.fromkeys(("802.1Qbg", "802.1Qbh"), PortKind.MACVTAP),
    },
    "ethernet": {"": PortKind.ETHERNET},
}
TYPES = (*FILTERABLE_PORTS, "user", "vhostuser", "hostdev", "vdpa", "mcast", "udp", "internal", "null", "something-new")


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("kind", TYPES)
def test_only_known_ports_are_filtered(kind: str, port: str) -> None:
    """Of a port it is known that its frames pass a filter, or it is refused by name; without a filter it is let be."""
    type_name, source = NETWORK.get(kind, (kind, ""))
    virtualport = f"<virtualport type='{port}'/>" if port else ""
    expected = FILTERABLE_PORTS.get(kind, {}).get(port, PortKind.OTHER)
    assert only(domain(interface(kind=type_name, source=source, inside=virtualport))).kind is expected
    filtered = domain(interface(kind=type_name, source=source, inside=virtualport + FILTERED))
    if expected is not PortKind.OTHER:
        assert only(filtered).kind is expected
        return
    with pytest.raises(DomainError, match=f"^d.xml:2: an interface of type '{type_name}' ") as caught:
        only(filtered)
    if kind in FILTERABLE_PORTS:
        assert f"<virtualport type='{port}'/>" in str(caught.value)
        assert "filters work without <virtualport>" in str(caught.value)
    else:
        assert "has no tap on the host to filter" in str(caught.value)


def test_a_port_that_cant_be_filtered_is_refused_whoever_asks() -> None:
    """A bridge's default and our element in <metadata> ask for the same; libvirt refuses only its own <filterref>."""
    text = interface(source="<source bridge='br0'/>", inside="<virtualport type='midonet'/>")
    for data, defaults in ((domain(text), [BR0]), (domain(text, metadata=binding("dev='vnet0'")), [])):
        with pytest.raises(DomainError, match="midonet"):
            only(data, defaults)


def test_macs_are_canonical() -> None:
    """A MAC is written with two lower case digits, however libvirt had it."""
    assert only(domain(interface(mac="52:54:0:AA:b:1"))).mac == "52:54:00:aa:0b:01"


# --- carriers ---------------------------------------------------------------------------------------------------------


def test_a_default_for_a_bridge() -> None:
    """An interface that names no filter gets its bridge's default; one that names a filter keeps it."""
    plain = interface(source="<source bridge='br0'/>")
    found = only(domain(plain), [BR0])
    assert found.reference == FilterRef("default", {}, Source("conf", 7))
    assert found.carrier is Carrier.DEFAULT
    named = only(domain(interface(source="<source bridge='br0'/>", inside=FILTERED)), [BR0])
    assert named.reference
    assert named.reference.filter == "clean-traffic"
    assert only(domain(plain), [Default("bridge", "br1", "default", (), "conf", 7)]).reference is None


LAN = "<source network='lan' bridge='virbr3'/>"
DEFAULTS = """[defaults]
network.default = of-network
bridge.br-tenant-1 = of-one
bridge.br-tenant-* = of-tenants
network.l?n = of-lan MODE=a MODE=b NET=192.0.2.0/24
bridge.virbr[0-9] = of-virbr
network.* = of-networks
bridge.* = of-bridges
bridge.br0 = never
"""


@pytest.mark.parametrize(
    ("kind", "source", "filter_name"),
    [
        ("network", "<source network='default'/>", "of-network"),
        ("network", "<source network='default' bridge='virbr0'/>", "of-network"),
        ("bridge", "<source bridge='br-tenant-1'/>", "of-one"),
        ("bridge", "<source bridge='br-tenant-12'/>", "of-tenants"),
        ("bridge", "<source bridge='BR-tenant-1'/>", "of-bridges"),
        ("bridge", "<source bridge='br0'/>", "of-bridges"),
        ("network", "<source network='lan'/>", "of-lan"),
        ("network", LAN, "of-lan"),
        ("network", "<source network='wan' bridge='virbr3'/>", "of-virbr"),
        ("network", "<source network='wan'/>", "of-networks"),
        ("network", "<source network='isolated' bridge='br9'/>", "of-networks"),
        ("network", "<source network='vepa' dev='eth0' mode='vepa'/>", "of-networks"),
        ("ethernet", "", None),
        ("direct", "<source dev='eth0' mode='bridge'/>", None),
    ],
)
def test_the_first_default_that_fits(kind: str, source: str, filter_name: str | None) -> None:
    """By the name of the libvirt network or of the bridge, exact or a pattern, in the order of the configuration."""
    found = only(domain(interface(kind=kind, source=source)), parse_config(DEFAULTS, "conf").defaults)
    assert (found.reference and found.reference.filter) == filter_name


def test_a_default_has_parameters() -> None:
    """What stands behind the filter's name is its parameters; the place that is named is the configuration's."""
    found = only(domain(interface(kind="network", source=LAN)), parse_config(DEFAULTS, "conf").defaults)
    assert found.reference == FilterRef("of-lan", {"MODE": ("a", "b"), "NET": ("192.0.2.0/24",)}, Source("conf", 5))


@pytest.mark.parametrize("selector", ["mac='52:54:0:0:0:1'", "dev='vnet0'", "alias='ua-lan'"])
def test_metadata_wins(selector: str) -> None:
    """Our element in <metadata> names an interface by MAC, tap or alias, and wins over its filterref."""
    reference = "<filterref filter='strict'><parameter name='IP' value='192.0.2.9'/></filterref>"
    data = domain(interface(inside=FILTERED + "<alias name='ua-lan'/>"), metadata=binding(selector, reference))
    found = only(data, [BR0])
    assert found.reference == FilterRef("strict", {"IP": ("192.0.2.9",)}, Source("d.xml", 1))
    assert found.carrier is Carrier.METADATA


def test_metadata_in_our_namespace_throughout() -> None:
    """The filterref in <metadata> may carry our namespace."""
    reference = "<nwf:filterref filter='f'><nwf:parameter name='A' value='1'/></nwf:filterref>"
    found = only(domain(interface(), metadata=binding(f"mac='{MAC}'", reference)))
    assert found.reference
    assert found.reference.parameters == {"A": ("1",)}


def test_metadata_for_a_macvtap() -> None:
    """An interface whose filterref libvirt drops gets its filter from <metadata>."""
    found = only(domain(interface(kind="direct", tap="macvtap0"), metadata=binding("dev='macvtap0'")))
    assert found.reference
    assert found.kind is PortKind.MACVTAP


def test_metadata_before_the_taps_have_names() -> None:
    """Before start, a tap or an alias that the XML doesn't know yet is no error; a MAC is always known."""
    unnamed = interface(tap="")
    assert only(domain(unnamed, metadata=binding("dev='vnet7'"))).reference is None
    assert only(domain(unnamed, metadata=binding("alias='net0'"))).reference is None
    with pytest.raises(DomainError, match="no interface has mac='52:54:00:00:00:99'"):
        parse_domain(domain(unnamed, metadata=binding("mac='52:54:00:00:00:99'")), "d.xml")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (binding("dev='vnet7'"), "no interface has dev='vnet7'"),
        (binding("mac='zz'"), "mac='zz' is not a MAC address"),
        (binding(""), "needs exactly one of mac=, alias=, dev="),
        (binding(f"mac='{MAC}' dev='vnet0'"), "needs exactly one of"),
        (binding("tap='vnet0'"), "unknown attribute 'tap'"),
        (binding("macc='x'"), "did you mean 'mac'?"),
        (binding("dev='vnet0'", ""), "holds exactly one <filterref"),
        (binding("dev='vnet0'", "<filterref filter='a'/><filterref filter='b'/>"), "holds exactly one <filterref"),
        (binding("dev='vnet0'", "<filter name='x'/>"), "holds exactly one <filterref"),
        (binding("dev='vnet0'").replace("nwf:interface", "nwf:iface"), "only <nwf:interface> goes here"),
        (
            binding("dev='vnet0'").replace(
                "</nwf:bindings>", f"<nwf:interface mac='{MAC}'><filterref filter='f'/></nwf:interface></nwf:bindings>"
            ),
            "has a reference already, at d.xml:1",
        ),
        (binding("dev='vnet0'") + binding("dev='vnet1'"), "a second <nwf:bindings>; write all in one"),
        (
            binding("dev='vnet0'").replace("nwf:bindings", "nwf:binding"),
            "unknown element <nwf:binding> in <metadata>; only <nwf:bindings> goes here; did you mean 'bindings'?",
        ),
        (binding("dev='vnet0'").replace("nwf:bindings", "nwf:Bindings"), "did you mean 'bindings'?"),
        ("<interface xmlns='https://nwfilter-hook.org/xmlns/1' dev='vnet0'/>", "only <nwf:bindings> goes here"),
        (
            binding("dev='vnet0'").replace("xmlns/1", "xmlns/2"),
            "unknown namespace 'https://nwfilter-hook.org/xmlns/2'; write 'https://nwfilter-hook.org/xmlns/1'",
        ),
        (binding("dev='vnet0'").replace("https:", "http:"), "unknown namespace 'http://nwfilter-hook.org/xmlns/1'"),
    ],
)
def test_wrong_metadata(metadata: str, message: str) -> None:
    """A binding that fits no interface, or more than one, or is misspelt, is an error with its line."""
    with pytest.raises(DomainError, match=r"^d.xml:1: ") as caught:
        parse_domain(domain(interface(), metadata=metadata), "d.xml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "where"),
    [
        (binding("dev='vnet0'").replace("<nwf:interface", "nwf:interface dev='vnet1'/><nwf:interface"), "bindings"),
        (binding("dev='vnet0'", "<filterref filter='f'/>x"), "interface"),
        (binding("dev='vnet0'", "<filterref filter='f'>x</filterref>"), "filterref"),
    ],
)
def test_text_in_metadata(metadata: str, where: str) -> None:
    """Text in what is ours in <metadata> is an error."""
    with pytest.raises(FilterSyntaxError, match=rf"^d.xml:1: text .* in <{where}>: no text goes in there"):
        parse_domain(domain(interface(), metadata=metadata), "d.xml")


def test_metadata_for_two_interfaces_of_one_mac() -> None:
    """A selector that fits two interfaces is an error."""
    data = domain(interface(), interface(tap="vnet1"), metadata=binding(f"mac='{MAC}'"))
    with pytest.raises(DomainError, match=f"2 interfaces have mac='{MAC}'"):
        parse_domain(data, "d.xml")


def test_metadata_of_others_is_not_ours() -> None:
    """Other applications' metadata is left alone, whatever it looks like."""
    foreign = "<app:bindings xmlns:app='http://example.org/'>text<app:interface what='ever'/></app:bindings>text<x/>"
    assert only(domain(interface(inside=FILTERED), metadata=foreign)).carrier is Carrier.FILTERREF


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<network/>", "the root element is <network>, not <domain>"),
        (b"<domain/>", "uuid '' is not a UUID"),
        (domain(uuid="../../etc/passwd"), "uuid '../../etc/passwd' is not a UUID"),
        (domain(uuid="1111"), "is not a UUID"),
        (domain(uuid=UUID.replace("-", "/")), "is not a UUID"),
        (domain(name=" "), "the domain has no name"),
        (domain(interface(mac="nonsense", inside=FILTERED)), "interface address 'nonsense' is not a MAC address"),
        (domain(f"<interface type='bridge'><target dev='t'/>{FILTERED}</interface>"), "no <mac address='…'/>"),
        (domain(interface(kind="user", inside=FILTERED)), "of type 'user' has no tap on the host to filter"),
        (domain(interface(kind="hostdev", inside=FILTERED)), "of type 'hostdev' has no tap"),
    ],
)
def test_wrong_domains(data: bytes, message: str) -> None:
    """A domain that can't be filtered as it asks is an error that says why, with its line."""
    with pytest.raises(DomainError) as caught:
        parse_domain(data, "d.xml")
    assert str(caught.value).startswith("d.xml:")
    assert message in str(caught.value)


TAPS_REFUSED = [
    *("a/b", "a b", "a\nb", "a" * 16, "..", ".", "", "tap@if2", "ä", "*", "a:0", "tap*"),
    *(f"a{mark}b" for mark in "\"';{}$\\#`@=+,*!?<>()[]|&^~"),
    *("tap\\*", 'vnet0" : accept }; flush ruleset; #', " vnet0", "../lock", "$(reboot)", "tap\u200b"),
    *("\nvnet0", "\t", "{ }", "#", "%d"),
]


@pytest.mark.parametrize(
    "tap", ["vnet0", "0net", "tap-web", "tap-web-2", "a.b", "mac", "ip", "a" * 15, "-x", "x_y", "..."]
)
def test_tap_names(tap: str) -> None:
    """A tap's name may begin with a digit, be an nft keyword, hold dots and dashes, and have 15 characters."""
    assert check_tap(tap, Source("d.xml", 1)) == tap


@pytest.mark.parametrize("tap", TAPS_REFUSED)
def test_hostile_tap_names(tap: str) -> None:
    """A tap's name that could mean something to nft or to a path is refused, by its name, on one line."""
    with pytest.raises(DomainError, match=r"^d.xml:1: tap name ") as caught:
        check_tap(tap, Source("d.xml", 1))
    assert str(caught.value).isprintable()


def test_a_hostile_tap_name_without_a_filter_is_nobodys_business() -> None:
    """The name of a tap that isn't filtered isn't looked at."""
    assert only(domain(interface(tap="a/b"))).tap == "a/b"
    with pytest.raises(DomainError, match="tap name 'a/b'"):
        parse_domain(domain(interface(tap="a/b", inside=FILTERED)), "d.xml")


@pytest.mark.parametrize(
    "reference",
    [
        "<filterref filter='a b'/>",
        "<filterref filter='../../../etc/passwd'/>",
        "<filterref filter='x&#10;flush ruleset'/>",
        "<filterref filter='f'><parameter name='IP' value='1,2'/></filterref>",
        "<filterref filter='f'><parameter name='IP' value='&quot;;flush ruleset;#'/></filterref>",
        "<filterref filter='f'><parameter name='&quot;;flush ruleset;#' value='1'/></filterref>",
    ],
)
def test_wrong_references(reference: str) -> None:
    """A reference that libvirt would take in part is an error with its line."""
    with pytest.raises(FilterSyntaxError, match=r"^d.xml:2: "):
        parse_domain(domain(interface(inside=reference)), "d.xml")


def test_a_running_guest_is_read_as_far_as_possible() -> None:
    """For a guest that runs already an interface keeps its own error, and the others are read."""
    wrong, right = interface(tap="vnet0", inside="<filterref filter='a b'/>"), interface(tap="vnet1", inside=FILTERED)
    found = parse_domain(domain(wrong, right), "d.xml", tolerant=True).interfaces
    assert [each.tap for each in found] == ["vnet0", "vnet1"]
    assert isinstance(found[0].problem, InputError)
    assert found[0].reference is None
    assert found[1].problem is None


def test_the_identity_alone() -> None:
    """To remove a guest its UUID is enough, whatever else is wrong with its XML."""
    data = domain(interface(mac="nonsense", inside=FILTERED), uuid=UUID.upper())
    assert parse_identity(data, "d.xml") == UUID
    with pytest.raises(XmlSyntaxError):
        parse_identity(b"", "d.xml")
