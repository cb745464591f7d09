"""Where the headers of a frame are, and what can be read, as the kernel has it."""

from __future__ import annotations

import pytest

from nwfilter_hook.ruleset.fields import Field
from nwfilter_hook.ruleset.frame import decode_frame
from tests.conformance.packets import (
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    GUEST_IP,
    HOP_BY_HOP,
    NO_NEXT,
    PLAIN,
    ROUTING,
    Shape,
    build,
)

TCP = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 6, Field.SRC_PORT: 1234, Field.TCP_FLAGS: 0x12}
TCP6 = {Field.ETHER_TYPE: 0x86DD, Field.L4_PROTOCOL: 6, Field.SRC_PORT: 1234}


def value(field: Field, values: dict[Field, int], shape: Shape = PLAIN) -> int | None:
    """The field of the frame with these values."""
    return decode_frame(build(values, shape)).value(field)


def test_every_field_is_where_its_header_has_it() -> None:
    """What was built in is read back."""
    for values in (
        {**TCP, Field.DST_PORT: 80, Field.IP_DSCP: 46, Field.IP_SRC: 0x0A000001, Field.IP_DST: 0xE0000001},
        {**TCP6, Field.IP6_DSCP: 46, Field.IP6_SRC: 1, Field.IP6_DST: 0xFF02 << 112 | 1},
        {Field.ETHER_TYPE: 0x0806, Field.ARP_OPCODE: 2, Field.ARP_SRC_IP: 7, Field.ARP_DST_MAC: 9, Field.ARP_HLEN: 6},
        {
            Field.ETHER_TYPE: 0x8100,
            Field.VLAN_ID: 4094,
            Field.VLAN_TYPE: 0x0806,
            Field.ETHER_SRC: 1,
            Field.ETHER_DST: 2,
        },
        {Field.STP_TYPE: 0x80, Field.STP_ROOT_COST: 0xFFFFFFFE, Field.STP_PORT: 5, Field.STP_FORWARD_DELAY: 6},
        {Field.ETHER_TYPE: 0x86DD, Field.L4_PROTOCOL: 58, Field.ICMPV6_TYPE: 135, Field.ND_TARGET: 5, Field.ND_MAC: 6},
    ):
        for field, expected in values.items():
            assert value(field, values) == expected, field


def test_a_field_of_another_protocol_is_not_there() -> None:
    """An IPv4 frame has no IPv6 address, a UDP packet no TCP flags."""
    assert value(Field.IP6_SRC, TCP) is None
    assert value(Field.ICMP_TYPE, TCP) is None
    assert value(Field.VLAN_ID, TCP) is None
    assert value(Field.TCP_FLAGS, {**TCP, Field.IP_PROTOCOL: 17}) is None


@pytest.mark.parametrize("tag", [0x8100, 0x88A8])
def test_behind_a_tag(tag: int) -> None:
    """The outer type is the tag's; network and transport header are found behind one tag, and not behind two."""
    assert value(Field.ETHER_TYPE, TCP, Shape(tags=(tag,))) == tag
    assert value(Field.IP_SRC, TCP, Shape(tags=(tag,))) == GUEST_IP
    assert value(Field.IP_SRC, TCP, Shape(tags=(tag, 0x8100))) is None
    assert value(Field.L4_PROTOCOL, TCP, Shape(tags=(tag,))) == 6
    assert value(Field.L4_PROTOCOL, TCP, Shape(tags=(tag, 0x8100))) is None


@pytest.mark.parametrize(
    "shape",
    [
        Shape(version=5),
        Shape(header_words=4),
        Shape(header_words=15),
        Shape(total_difference=1),
        Shape(total_difference=-100),
        Shape(length=33),
    ],
)
def test_an_ipv4_header_that_contradicts_itself(shape: Shape) -> None:
    """Its addresses can be read, if they are there, and nothing behind it."""
    assert value(Field.L4_PROTOCOL, TCP, shape) is None
    assert value(Field.SRC_PORT, TCP, shape) is None
    assert value(Field.IP_SRC, TCP, shape) is not None


def test_options_and_padding() -> None:
    """IPv4 options are skipped; a frame may be longer than its packet."""
    assert value(Field.SRC_PORT, TCP, Shape(ip_options=8)) == 1234
    assert value(Field.SRC_PORT, TCP, Shape(length=200)) == 1234


def test_fragments() -> None:
    """The first has ports; the others have a protocol only."""
    later = Shape(fragment_offset=8, extensions=(FRAGMENT,))
    for values in (TCP, TCP6):
        assert value(Field.SRC_PORT, values, Shape(more_fragments=True, extensions=(FRAGMENT,))) == 1234
        assert value(Field.L4_PROTOCOL, values, later) == 6
        assert value(Field.SRC_PORT, values, later) is None
    assert value(Field.L4_PROTOCOL, TCP6, Shape(fragment_offset=8, extensions=(FRAGMENT, DESTINATION))) is None


def test_extension_headers() -> None:
    """They are walked up to the first AH, or to the end."""
    assert value(Field.SRC_PORT, TCP6, Shape(extensions=(HOP_BY_HOP, DESTINATION, ROUTING))) == 1234
    assert value(Field.L4_PROTOCOL, TCP6, Shape(extensions=(HOP_BY_HOP, AUTHENTICATION))) == AUTHENTICATION
    assert value(Field.L4_PROTOCOL, TCP6, Shape(extensions=(NO_NEXT,))) == NO_NEXT
    assert value(Field.L4_PROTOCOL, TCP6, Shape(extensions=(HOP_BY_HOP,), length=55)) is None


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ("", ()),
        ("020405b4", (2,)),
        ("01020405b4010101", (1, 2)),
        ("0228", ()),  # longer than the header
        ("01017f02", (1, 127)),
        ("0000", (0, 1)),  # the kernel looks on behind an end of options
    ],
)
def test_tcp_options(options: str, kinds: tuple[int, ...]) -> None:
    """Kinds by walking the options as the kernel does."""
    assert decode_frame(build(TCP, Shape(tcp_options=bytes.fromhex(options)))).tcp_options() == frozenset(kinds)


def test_no_tcp_header_has_no_options() -> None:
    """None is not "no option"."""
    assert decode_frame(build({**TCP, Field.IP_PROTOCOL: 17})).tcp_options() is None
    assert decode_frame(build(TCP, Shape(fragment_offset=8))).tcp_options() is None
    assert decode_frame(build(TCP, Shape(tcp_words=4))).tcp_options() == frozenset()


def test_a_tag_that_is_still_in_the_frame() -> None:
    """
    Where a macvtap's guest sends, a length behind a tag stays one, and a tag that is cut can't be read; elsewhere the
    kernel has taken the tag off, and shows its own type in the length's place.
    """
    cut = bytes.fromhex("5254000000995254000000018100")
    assert decode_frame(cut, in_tag=True).value(Field.VLAN_ID) is None
    assert decode_frame(cut).value(Field.VLAN_ID) is not None
    length = cut + bytes.fromhex("00050005aaaa03") + bytes(40)
    assert decode_frame(length, in_tag=True).value(Field.VLAN_TYPE) == 5
    assert decode_frame(length).value(Field.VLAN_TYPE) == 4


def test_less_than_an_ethernet_header_is_no_frame() -> None:
    """No device sends one."""
    with pytest.raises(ValueError, match="13 bytes"):
        decode_frame(bytes(13))
    assert decode_frame(bytes(14)).value(Field.ETHER_TYPE) == 0
