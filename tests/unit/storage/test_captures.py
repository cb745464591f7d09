"""Captures: pcap and pcapng as scapy writes them, cut at every length, of other link types, with parts of frames."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import pytest
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, PcapWriter, RawPcapReader

from nwfilter_hook.base.errors import NwfilterHookError
from nwfilter_hook.storage.captures import Capture, CaptureWriter

FRAMES = [bytes(range(14)) + bytes([number]) * (40 + number) for number in range(5)]


def write(path: Path, writer: type, **options: int) -> Path:
    with writer(str(path), **options) as file:
        for frame in FRAMES:
            file.write(Ether(frame))
    return path


@pytest.fixture(params=["pcap", "pcapng"])
def capture(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A capture of FRAMES."""
    return write(tmp_path / "c", PcapWriter if request.param == "pcap" else PcapNgWriter)


def test_both_formats(capture: Path) -> None:
    """Every frame, numbered from 1; nothing is wrong."""
    file = Capture(str(capture))
    assert [(each.number, each.data, each.missing) for each in file] == [
        (number, frame, 0) for number, frame in enumerate(FRAMES, 1)
    ]
    assert file.fault is None


def test_from_standard_input(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As "-"."""
    with capture.open("rb") as file:
        monkeypatch.setattr("nwfilter_hook.storage.captures._STDIN", file.fileno())
        assert len(list(Capture("-"))) == len(FRAMES)


def test_cut_at_every_length(capture: Path, tmp_path: Path) -> None:
    """What is whole is read, and it is said that the file goes no further; a file of nothing is refused."""
    whole = capture.read_bytes()
    cut = tmp_path / "cut"
    silent = []
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        try:
            file = Capture(str(cut))
            found = [each.data for each in file]
        except NwfilterHookError:
            assert length < 80
            continue
        assert found == FRAMES[: len(found)]
        if file.fault is None:
            silent.append(length)
    # it ends between two frames, as a capture does that was just ended; a pcapng has a header of its own and a device's
    assert len(silent) <= len(FRAMES) + 1


@pytest.mark.parametrize(("link_type", "word"), [(113, "cooked"), (101, "raw IP"), (127, "Wi-Fi"), (250, "250")])
def test_other_link_types(tmp_path: Path, link_type: int, word: str) -> None:
    """They are named, with what to do."""
    path = write(tmp_path / "c", PcapWriter, linktype=link_type)
    with pytest.raises(NwfilterHookError, match=rf"{word}.*tcpdump -i TAP"):
        list(Capture(str(path)))


def test_a_snapshot_of_frames(tmp_path: Path) -> None:
    """tcpdump -s 20: what isn't there is zeros, and counted."""
    path = tmp_path / "c"
    header = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 20, 1)
    path.write_bytes(header + struct.pack("=IIII", 1, 2, 20, 60) + FRAMES[1][:20])
    (found,) = Capture(str(path))
    assert (found.data, found.missing) == (FRAMES[1][:20] + bytes(40), 40)


def test_directions_of_pcapng(tmp_path: Path) -> None:
    """dumpcap says whether the device got or sent the frame."""
    path = tmp_path / "c"

    def block(kind: int, body: bytes) -> bytes:
        length = 12 + len(body)
        return struct.pack("=II", kind, length) + body + struct.pack("=I", length)

    section = block(0x0A0D0D0A, struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1))
    device = block(1, struct.pack("=HHI", 1, 0, 0))
    packets = b""
    for flags in (1, 2):
        option = struct.pack("=HHIHH", 2, 4, flags, 0, 0)
        packets += block(6, struct.pack("=IIIII", 0, 0, 0, 16, 16) + bytes(16) + option)
    path.write_bytes(section + device + packets)
    assert [each.inbound for each in Capture(str(path))] == [True, False]


@pytest.mark.parametrize(
    "garbage", [b"", b"\n", b"\xd4\xc3\xb2\xa1", b"<xml/>" * 9, b"\x0a\x0d\x0d\x0a" + b"\xff" * 99]
)
def test_no_capture(tmp_path: Path, garbage: bytes) -> None:
    """One line."""
    path = tmp_path / "c"
    path.write_bytes(garbage)
    with pytest.raises(NwfilterHookError, match="is no capture: neither pcap nor pcapng"):
        Capture(str(path))


def test_broken_in_the_middle(capture: Path) -> None:
    """Lengths that can't be: an end and a fault, no endless reading."""
    whole = bytearray(capture.read_bytes())
    at = whole.index(FRAMES[2])
    whole[at - 16 : at] = b"\xff" * 16
    capture.write_bytes(whole)
    file = Capture(str(capture))
    assert [each.data for each in file][:2] == FRAMES[:2]
    assert file.fault


def test_without_scapy(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional; the package is named."""
    for name in [name for name in sys.modules if name.split(".")[0] == "scapy"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NwfilterHookError, match="python3-scapy"):
        Capture(str(capture))


def test_what_is_written_is_a_capture(tmp_path: Path) -> None:
    """Whole frames and beginnings of frames; scapy reads them."""
    path = tmp_path / "c"
    writer = CaptureWriter(str(path))
    writer.add(1_700_000_000_000_001, FRAMES[0], len(FRAMES[0]))
    writer.add(1_700_000_001_000_002, FRAMES[1][:20], 60)
    writer.close()
    with RawPcapReader(io.BytesIO(path.read_bytes())) as reader:
        found = [(data, said.sec, said.usec, said.wirelen) for data, said in reader]
    assert found == [
        (FRAMES[0], 1_700_000_000, 1, len(FRAMES[0])),
        (FRAMES[1][:20], 1_700_000_001, 2, 60),
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(NwfilterHookError, match="Is a directory"):
        CaptureWriter(str(tmp_path))
