"""A frame from what tcpdump, Wireshark, hexdump and xxd print; garbage has an error of its own."""

from __future__ import annotations

import pytest

from nwfilter_hook.base.errors import PacketError
from nwfilter_hook.packets.hexdump import parse_hex

FRAME = bytes.fromhex(
    "525400000002525400000001080045000028000140004006c0f30a0000070a0000099c4001bb00000000000000005002200091640000"
)

TCPDUMP_XX = """14:02:11.123456 IP 10.0.0.7.40000 > 10.0.0.9.443: Flags [S], seq 0, win 8192, length 0
\t0x0000:  5254 0000 0002 5254 0000 0001 0800 4500
\t0x0010:  0028 0001 4000 4006 c0f3 0a00 0007 0a00
\t0x0020:  0009 9c40 01bb 0000 0000 0000 0000 5002
\t0x0030:  2000 9164 0000
"""
TCPDUMP_UPPER_XX = """\t0x0000:  5254 0000 0002 5254 0000 0001 0800 4500  RT....RT......E.
\t0x0010:  0028 0001 4000 4006 c0f3 0a00 0007 0a00  .(..@.@.........
\t0x0020:  0009 9c40 01bb 0000 0000 0000 0000 5002  ...@..........P.
\t0x0030:  2000 9164 0000                           ...d..
"""
WIRESHARK = """0000   52 54 00 00 00 02 52 54 00 00 00 01 08 00 45 00   RT....RT......E.
0010   00 28 00 01 40 00 40 06 c0 f3 0a 00 00 07 0a 00   .(..@.@.........
0020   00 09 9c 40 01 bb 00 00 00 00 00 00 00 00 50 02   ...@..........P.
0030   20 00 91 64 00 00                                  ..d..
"""
HEXDUMP_C = """00000000  52 54 00 00 00 02 52 54  00 00 00 01 08 00 45 00  |RT....RT......E.|
00000010  00 28 00 01 40 00 40 06  c0 f3 0a 00 00 07 0a 00  |.(..@.@.........|
00000020  00 09 9c 40 01 bb 00 00  00 00 00 00 00 00 50 02  |...@..........P.|
00000030  20 00 91 64 00 00                                 | ..d..|
00000036
"""
XXD = """00000000: 5254 0000 0002 5254 0000 0001 0800 4500  RT....RT......E.
00000010: 0028 0001 4000 4006 c0f3 0a00 0007 0a00  .(..@.@.........
00000020: 0009 9c40 01bb 0000 0000 0000 0000 5002  ...@..........P.
00000030: 2000 9164 0000                            ..d..
"""
FORMS = {
    "digits": FRAME.hex(),
    "capitals": FRAME.hex().upper(),
    "colons": FRAME.hex(":"),
    "blanks": FRAME.hex(" "),
    "0x": "0x" + FRAME.hex(),
    "C": "".join(f"\\x{octet:02x}" for octet in FRAME),
    "lines": "\n".join(FRAME.hex()[at : at + 32] for at in range(0, len(FRAME.hex()), 32)),
    "tcpdump -xx": TCPDUMP_XX,
    "tcpdump -XX": TCPDUMP_UPPER_XX,
    "Wireshark": WIRESHARK,
    "hexdump -C": HEXDUMP_C,
    "xxd": XXD,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    """Each is the same frame."""
    assert parse_hex(FORMS[form]).hex() == FRAME.hex()


GARBAGE = {
    "": "0 octets are no Ethernet frame",
    "5254": "2 octets are no Ethernet frame",
    "525": "3 digits; every octet has two",
    "no hex": "'n' is no hexadecimal digit",
    "ж" * 40: "is no hexadecimal digit",
    TCPDUMP_XX * 2: "more than one frame",
    TCPDUMP_XX.replace("0x0010", "0x0020"): "a line is missing",
    "0000  \n": "octets",
    FRAME[14:].hex(): "tcpdump prints that with -xx",
    "00" * 70_000: "more than a frame can have",
    "0" * (1 << 20) + "00": "characters",
}


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text[:20]))
def test_garbage(text: str) -> None:
    """One line, what is wrong."""
    with pytest.raises(PacketError, match=GARBAGE[text]):
        parse_hex(text)


@pytest.mark.parametrize("form", ["tcpdump -xx", "Wireshark", "hexdump -C", "xxd", "digits"])
def test_cut_at_every_length(form: str) -> None:
    """A beginning of the frame, or an error; nothing else."""
    for length in range(len(FORMS[form])):
        try:
            found = parse_hex(FORMS[form][:length])
        except PacketError:
            continue
        assert FRAME.startswith(found)
