"""The data types of attributes, where the table of the language doesn't reach: what a text means, and odd texts."""

from __future__ import annotations

import pytest

from nwfilter_hook.base import addresses
from nwfilter_hook.filters import values
from nwfilter_hook.filters.model import SetFlags, TcpFlags
from nwfilter_hook.filters.types import TYPES


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("10", 10),  # decimal wins
        ("0x10", 16),
        ("0X1f", 31),
        ("1f", 31),
        ("ff", 255),
        (" 5", 5),
        ("+5", 5),
        ("\t+0x5", 5),
        ("007", 7),
    ],
)
def test_a_number_is_decimal_or_hexadecimal(text: str, number: int) -> None:
    """A number is read as C's strtoul does for libvirt: decimal first, then hexadecimal with or without 0x."""
    assert values.parse_number(text) == number


@pytest.mark.parametrize("text", ["", " ", "-1", "5 ", "0x", "1.0", "1e3g", "5\n", "５", "1_000"])
def test_what_is_no_number(text: str) -> None:
    """Signs, trailing text, other bases and digits of other scripts are no numbers."""
    with pytest.raises(ValueError, match="a number"):
        values.parse_number(text)


@pytest.mark.parametrize("parser", ["UINT8", "UINT32", "CONNLIMIT", "IP_MASK", "IPV6_MASK", "PROTOCOL"])
@pytest.mark.parametrize("digit", ["9", "f"])
def test_a_number_of_ten_thousand_digits_is_out_of_range(parser: str, digit: str) -> None:
    """However long a number is, it is refused with what would be accepted, not with Python's own complaint."""
    with pytest.raises(ValueError, match=r"^a (number|decimal number|mask)"):
        TYPES[parser].parse(digit * 10_000)


def test_bounds_are_named() -> None:
    """The complaint about a number names the bounds, and the names that would do."""
    with pytest.raises(ValueError, match=r"^a number from 0 to 63$"):
        TYPES["DSCP"].parse("64")
    with pytest.raises(ValueError, match=r"^a number from 0x600 to 0xffff or one of arp rarp ipv4 ipv6 vlan$"):
        TYPES["ETHERTYPE"].parse("800")


def test_macs() -> None:
    """A MAC has six groups of one or two digits, in any case, and is written with two in lower case."""
    assert addresses.parse_mac("0:1:2:A:fF:10") == 0x0001020AFF10
    assert addresses.format_mac(0x0001020AFF10) == "00:01:02:0a:ff:10"


@pytest.mark.parametrize(
    ("text", "bits"), [("24", 0xFFFFFF00), ("255.255.255.0", 0xFFFFFF00), ("0", 0), ("32", 2**32 - 1)]
)
def test_a_mask_is_its_bits(text: str, bits: int) -> None:
    """A prefix length and a dotted mask are the same mask."""
    assert TYPES["IP_MASK"].parse(text) == bits


def test_ipv6_masks() -> None:
    """An IPv6 mask is a prefix length or an address with all its ones at the front."""
    assert TYPES["IPV6_MASK"].parse("64") == TYPES["IPV6_MASK"].parse("ffff:ffff:ffff:ffff::")


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("NEW", {"new"}),
        ("new,Established", {"new", "established"}),
        ("RELATED INVALID", {"related", "invalid"}),
        (" NEW ,  RELATED ", {"new", "related"}),
        ("NEW,NONE", {"none"}),
    ],
)
def test_states(text: str, states: set[str]) -> None:
    """States are separated by commas and blanks, in any case; NONE anywhere wins."""
    assert values.parse_states(text) == states


def test_tcp_flags() -> None:
    """Flags are MASK/FLAGS; ALL is the six of RFC 793."""
    assert values.parse_tcp_flags("SYN,ACK/SYN") == TcpFlags(mask=0x12, flags=0x02)
    assert values.parse_tcp_flags("all/none") == TcpFlags(mask=0x3F, flags=0)


def test_set_flags() -> None:
    """ipsetflags say for each dimension whether it is the source."""
    assert values.parse_set_flags("src,DST") == SetFlags((True, False))


def test_a_comment_is_cut_as_libvirt_cuts_it() -> None:
    """A comment keeps 256 bytes, and never half a character."""
    assert values.parse_comment("c" * 300) == "c" * 256
    assert values.parse_comment("c" + "ä" * 128) == "c" + "ä" * 127


@pytest.mark.parametrize("type_name", ["ETHERTYPE", "ENCAPTYPE", "PROTOCOLTYPE"])
def test_plain_digits_in_a_variable_where_libvirt_reads_hexadecimal(type_name: str) -> None:
    """A variable's digits that libvirt would take for hexadecimal are refused; 0x says which is meant."""
    assert TYPES[type_name].parse_bound("0x0800") == 0x800
    with pytest.raises(ValueError, match=r"0x in front here .* reads a variable's 2048 as 0x2048"):
        TYPES[type_name].parse_bound("2048")


def test_digits_that_read_the_same_in_both_bases() -> None:
    """A single digit is the same in both bases."""
    assert TYPES["PROTOCOLTYPE"].parse_bound("8") == 8
