"""
A tiny guest for libvirt: Debian's kernel and an initramfs that holds busybox, one frame tool and a shell.

In:  a kernel (`stock_kernel()`), busybox-static, a C compiler, tests/libvirt/guest/.
Out: an initramfs (`build_initramfs`) and an unpacked kernel (`unpack_kernel`), domain XML that boots them
     (`domain_xml`), and the guest's shell on the serial port (`GuestShell`). A frame to be recognised when it
     arrives is marked (`mark`).
"""

from __future__ import annotations

import itertools
import lzma
import os
import select
import shutil
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from tests.support.stock_kernel import StockKernel

SOURCES = Path(__file__).resolve().parent.parent / "libvirt" / "guest"
BUSYBOX = Path("/bin/busybox")
DRIVERS = ("virtio_pci", "virtio_net")
MEMORY_MIB = 96
BOOT_PATIENCE_S = 180.0
COMMAND_PATIENCE_S = 60.0


# ---- the image ----


def build_initramfs(kernel: StockKernel, work: Path) -> Path:
    """
    Build the guest's initramfs in `work`.

    Raises:
        RuntimeError: a tool is missing, with the Debian package that has it.
    """
    if shutil.which("gcc") is None:
        raise RuntimeError("the guest's frame tool is compiled: apt-get install gcc libc6-dev")
    if not BUSYBOX.exists():
        raise RuntimeError("the guest is made of busybox: apt-get install busybox-static")
    program = work / "frame"
    compiled = subprocess.run(
        ["gcc", "-static", "-O2", "-Wall", "-Werror", "-o", str(program), str(SOURCES / "frame.c")],
        capture_output=True,
        text=True,
        check=False,
    )
    if compiled.returncode != 0:
        raise RuntimeError(f"frame.c does not compile (apt-get install libc6-dev?): {compiled.stderr.strip()}")
    archive = bytearray()
    numbers = itertools.count(1)
    for directory in ("bin", "modules"):
        archive += _cpio_entry(next(numbers), directory, 0o040755, b"")
    for source, name in ((SOURCES / "init", "init"), (BUSYBOX, "bin/busybox"), (program, "bin/frame")):
        archive += _cpio_entry(next(numbers), name, 0o100755, source.read_bytes())
    for order, module in enumerate(_modules(kernel.modules, DRIVERS)):
        archive += _cpio_entry(next(numbers), f"modules/{order:02}-{module.name}", 0o100644, module.read_bytes())
    archive += _cpio_entry(0, "TRAILER!!!", 0, b"")
    image = work / "initramfs.cpio"
    image.write_bytes(archive)
    return image


def unpack_kernel(vmlinuz: Path, work: Path) -> Path:
    """
    Unpack the kernel inside `vmlinuz` into `work`, an ELF file that QEMU starts by its PVH entry point.

    An emulated processor takes seconds for unpacking it, at every boot. Where the image is compressed by something
    else than xz it is used as it is. (Documentation/x86/boot.rst: setup_sects, payload_offset, payload_length.)
    """
    image = vmlinuz.read_bytes()
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    payload = image[start : start + length]
    if not payload.startswith(b"\xfd7zXZ\0"):
        return vmlinuz
    vmlinux = work / "vmlinux"
    # Behind the stream the payload holds the unpacked size, which lzma.decompress() would stumble over.
    vmlinux.write_bytes(lzma.LZMADecompressor().decompress(payload))
    return vmlinux


def _modules(directory: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of the `wanted` modules and of all they depend on, in loading order (man 5 modules.dep)."""
    needs: dict[str, list[str]] = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        path, _, after = line.partition(":")
        needs[path] = after.split()
    by_name = {Path(path).name.split(".ko")[0]: path for path in needs}
    order: list[str] = []

    def add(path: str) -> None:
        for needed in needs[path]:
            add(needed)
        if path not in order:
            order.append(path)

    for name in wanted:
        add(by_name[name])
    return [directory / path for path in order]


def _cpio_entry(inode: int, name: str, mode: int, data: bytes) -> bytes:
    """One member of an archive in "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    links = 2 if mode & 0o040000 else 1
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)


# ---- the domain ----


def guest_uuid(name: str) -> str:
    """The UUID of the guest of that name, the same in every run."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.guest.invalid"))


def interface_xml(mac: str, source: str, *, kind: str = "bridge", tap: str = "", reference: str = "") -> str:
    """One <interface>; `source` is its <source .../> element, `reference` its <filterref>, both may be empty."""
    target = f"<target dev='{tap}'/>" if tap else ""
    return (
        f"<interface type='{kind}'><mac address='{mac}'/>{source}{target}<model type='virtio'/>{reference}</interface>"
    )


def filterref_xml(name: str, *parameters: tuple[str, str]) -> str:
    """A <filterref> with its parameters."""
    inner = "".join(f"<parameter name='{key}' value='{value}'/>" for key, value in parameters)
    return f"<filterref filter='{name}'>{inner}</filterref>"


def domain_xml(name: str, kernel: Path, initramfs: Path, interfaces: Iterable[str], metadata: str = "") -> str:
    """A domain that boots the guest image; console to /run/guests/NAME.log, shell at /run/guests/NAME.sock."""
    return f"""\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{guest_uuid(name)}</uuid>
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>{MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>console=ttyS0 quiet panic=1 ipv6.disable=1 mitigations=off</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    {"".join(interfaces)}
    <serial type='file'><source path='/run/guests/{name}.log'/><target port='0'/></serial>
    <serial type='unix'><source mode='bind' path='/run/guests/{name}.sock'/><target port='1'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


# ---- its shell ----


class GuestShell:
    """
    The shell of a running guest, reached through QEMU's end of its second serial port.

    Each command carries a number of its own, so an answer that was on its way when the guest was saved, or an echo
    from before the port was set up, is never taken for another's.
    """

    _numbers = itertools.count(1)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._pending = b""
        # Through a link to its directory: sun_path holds 108 bytes, and the path by which we know it may be longer.
        directory = os.open(path.parent, os.O_PATH)
        try:
            self._socket.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)

    def close(self) -> None:
        """Hang up; the guest doesn't notice."""
        self._socket.close()

    def wait_until_up(self) -> None:
        """Wait until the guest has booted (or goes on after a restore) and answers."""
        end = time.monotonic() + BOOT_PATIENCE_S
        while time.monotonic() < end:
            number = next(self._numbers)
            self._socket.sendall(f"\n{number} :\n".encode())
            if self._answer(number, patience_s=1.0) is not None:
                return
        raise AssertionError(f"{self._path.stem} is not up after {BOOT_PATIENCE_S:.0f} s")

    def run(self, command: str, patience_s: float = COMMAND_PATIENCE_S) -> tuple[int, str]:
        """Run a command of busybox's shell in the guest; exit status and output."""
        number = next(self._numbers)
        self._socket.sendall(f"{number} {command}\n".encode())
        answer = self._answer(number, patience_s)
        assert answer is not None, f"{self._path.stem}: no answer to {command!r} in {patience_s:.0f} s"
        return answer

    def check(self, command: str) -> str:
        """As `run`, of a command that must succeed; its output."""
        status, output = self.run(command)
        assert status == 0, f"{self._path.stem}: {command!r} -> {status}: {output}"
        return output

    def leave(self, command: str) -> None:
        """Run a command that ends the guest, so there is no answer."""
        self._socket.sendall(f"{next(self._numbers)} {command}\n".encode())

    def _answer(self, number: int, patience_s: float) -> tuple[int, str] | None:
        """The answer to command `number`, None if it doesn't come in time."""
        end = time.monotonic() + patience_s
        opening, closing = f"--- {number}\n".encode(), f"=== {number} ".encode()
        while True:
            _, opened, after = self._pending.partition(opening)
            output, closed, rest = after.partition(closing)
            status, line_ended, rest = rest.partition(b"\n")
            if opened and closed and line_ended:
                self._pending = rest
                return int(status), output.decode(errors="replace")
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                return None
            received = self._socket.recv(65536)
            assert received, f"{self._path.stem}: QEMU closed the serial port"
            self._pending += received

    # What the tests ask of it.

    def send(self, frame: bytes, device: str = "eth0") -> None:
        """Send a frame as it is."""
        self.check(f"frame send {device} {frame.hex()}")

    def heard(self, frame: bytes, device: str = "eth0") -> bool:
        """Whether the marked `frame` has arrived at `device` since the guest booted."""
        return self.run(f"grep -q {mark_of(frame).hex()} /tmp/heard-{device}")[0] == 0


# ---- frames ----


MARK_LENGTH = 12
_marks = itertools.count(1)


def mark(frame: bytes) -> bytes:
    """
    The frame with a trailer that no other frame has.

    A bridge hands a trailer on, and whoever reads the headers takes it for padding.
    """
    return frame.ljust(60, b"\0") + b"%012x" % next(_marks)


def mark_of(frame: bytes) -> bytes:
    """The trailer of a marked frame, to look for in what was received."""
    return frame[-MARK_LENGTH:]
