"""
Files with captured frames: pcap and pcapng, as tcpdump and Wireshark write them.

In:  a path, "-" for standard input; what is read is scapy's work.
Out: `Captured`, one frame after the other, however large the file is; a pcap file of frames that are written.

https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-05.html, draft-ietf-opsawg-pcapng-04.html
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator

from ..base.dataclass import dataclass
from ..base.errors import NwfilterHookError, SystemErrorAs
from ..base.text import one_line

_ETHERNET = 1
_LINK_TYPES = {
    **{0: "loopback", 12: "raw IP", 101: "raw IP", 105: "Wi-Fi", 113: "cooked (-i any)", 127: "Wi-Fi"},
    **{276: "cooked (-i any)", 228: "raw IPv4", 229: "raw IPv6", 192: "PPI"},
}
"""https://www.tcpdump.org/linktypes.html: those that people come with."""
_INBOUND = 1
_STDIN = 0
_LONGEST = 1 << 18
_HELD = 0xFFFF
"""Octets of a frame that scapy gives."""
_BLOCK = 1 << 26
_PCAP_HEADER = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _LONGEST, _ETHERNET)


@dataclass(frozen=True)
class Captured:
    """
    A frame of a capture.

    Attributes:
        number: from 1, as Wireshark counts.
        data: as long as it was on the wire: what the capture doesn't hold of it is zeros.
        missing: how many octets that are.
        inbound: whether it came in through the device that was captured; None if the file doesn't say.
    """

    number: int
    data: bytes
    missing: int
    inbound: bool | None


class Capture:
    """
    A file that is read; iterates over its frames.

    Attributes:
        fault: set at the end: why there is no more to read though the file goes on, or ends within a frame.
    """

    def __init__(self, path: str) -> None:
        """Raises NwfilterHookError: it can't be read, is no capture, or scapy isn't there."""
        self.path = path
        self.fault: str | None = None
        # what it warns of is known here by what it reads
        logging.getLogger("scapy").setLevel(logging.CRITICAL)
        logging.getLogger("scapy.runtime").setLevel(logging.CRITICAL)
        try:
            from scapy.error import Scapy_Exception
            from scapy.utils import RawPcapReader
        except ImportError:
            raise NwfilterHookError("captures need scapy (Debian: python3-scapy), which isn't installed") from None
        with SystemErrorAs(NwfilterHookError, path):
            self._file = _File(path)
            try:
                self._reader = RawPcapReader(self._file)
            except (Scapy_Exception, EOFError, struct.error):
                raise NwfilterHookError(f"{one_line(path)}: is no capture: neither pcap nor pcapng") from None
        # of pcapng a block, which can be something else than a frame
        self._read = getattr(self._reader, "_read_block", self._reader._read_packet)

    def __iter__(self) -> Iterator[Captured]:
        """Raises NwfilterHookError: a frame is of another link layer."""
        number = 0
        while True:
            begin = self._file.octets
            with SystemErrorAs(NwfilterHookError, self.path):
                try:
                    found = self._read()
                except (EOFError, struct.error, ValueError, IndexError, KeyError):
                    if self._file.octets != begin:
                        self.fault = f"{one_line(self.path)} is broken or cut off behind frame {number}"
                    return
            if found is None:
                continue
            data, said = found
            number += 1
            self._check(number, getattr(said, "linktype", getattr(self._reader, "linktype", _ETHERNET)))
            if len(data) < min(getattr(said, "caplen", 0), _HELD) or said.wirelen > _LONGEST:
                self.fault = f"{one_line(self.path)} is broken or cut off in frame {number}, which is left out"
                return
            missing = max(said.wirelen - len(data), 0)
            direction = getattr(said, "direction", None)
            yield Captured(number, data + bytes(missing), missing, direction == _INBOUND if direction else None)

    def _check(self, number: int, link_type: int) -> None:
        if link_type != _ETHERNET:
            name = _LINK_TYPES.get(link_type, "unknown here")
            raise NwfilterHookError(
                f"{one_line(self.path)}: frame {number} is of link type {link_type}, {name}; filters judge Ethernet "
                "frames: capture with tcpdump -i TAP"
            )


class _File:
    """
    A file that counts what is read of it.

    Attributes:
        octets: so many.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self.octets = 0
        self._file = open(_STDIN if path == "-" else path, "rb", closefd=path != "-")  # noqa: SIM115  read later

    def read(self, size: int) -> bytes:
        """As a file does. Raises EOFError: more at once than can be meant."""
        if size > _BLOCK:
            raise EOFError
        data = self._file.read(size)
        self.octets += len(data)
        return data

    def close(self) -> None:
        """No more."""
        self._file.close()


class CaptureWriter:
    """A pcap file that grows."""

    def __init__(self, path: str) -> None:
        """Raises NwfilterHookError."""
        self._path = path
        with SystemErrorAs(NwfilterHookError, path):
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._put(_PCAP_HEADER)

    def add(self, time_us: int, data: bytes, length: int) -> None:
        """
        Write a frame down, of which `data` is the beginning.

        Raises:
            NwfilterHookError: the disk is full …
        """
        with SystemErrorAs(NwfilterHookError, self._path):
            self._put(struct.pack("=IIII", *divmod(time_us, 1_000_000), len(data), max(length, len(data))) + data)

    def _put(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        """No more."""
        os.close(self._file)
