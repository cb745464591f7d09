"""
A wire: a bridge with taps in a network namespace of the test's own, and a guest at the end of each tap.

In:  names of taps, nft scripts or libvirt hook events, frames as bytes.
Out: which guest received which frame.

A guest is a tap held open, as QEMU holds it: what is written to it, the guest sent; what is read from it, the
guest received. A write returns only when the frame has gone through the bridge and lies in the queue of every
tap it reaches: the kernel's tun driver hands a frame on in the writer's context, and an idle queueing
discipline hands it to the other tap in that same context. So what can't be read right after the write was
dropped, and nobody waits for anything. tests/wire/test_wire.py holds the kernel to that.

Needs root and /dev/net/tun.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, final

REPOSITORY = Path(__file__).resolve().parents[2]

CLONE_NEWNS = 0x00020000  # sched.h
CLONE_NEWNET = 0x40000000
MS_REC_SLAVE = 0x4000 | 0x80000  # sys/mount.h
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
LONGEST_FRAME = 65535

BRIDGE = "br0"

_libc = ctypes.CDLL(None, use_errno=True)


def _call(function: str, *arguments: int) -> None:
    """Call `function` of the C library. os.setns and os.unshare came with Python 3.12."""
    if getattr(_libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def new_network_namespace() -> int:
    """A descriptor of a new network namespace, which lives as long as something refers to it."""
    descriptors: list[int] = []
    failures: list[OSError] = []

    def create() -> None:
        try:
            _call("unshare", CLONE_NEWNET)
            descriptors.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as failure:
            failures.append(failure)

    # Only the thread that unshares moves, and it ends here.
    thread = threading.Thread(target=create)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return descriptors[0]


def _write_sysctl(name: str, value: int) -> None:
    """Set /proc/sys/net/`name` of the caller's namespace, if the kernel has it."""
    path = Path("/proc/sys/net") / name
    if path.exists():
        path.write_text(f"{value}\n")


def _mount_own_sysfs() -> None:
    """In a new process: /sys shows the network devices of its namespace, as `ip netns exec` arranges it."""
    _call("unshare", CLONE_NEWNS)
    for source, target, kind, flags in ((None, b"/", None, MS_REC_SLAVE), (b"sysfs", b"/sys", b"sysfs", 0)):
        if _libc.mount(source, target, kind, flags, None) != 0:
            raise OSError(ctypes.get_errno(), "mount")


def command_line(tree: Path = REPOSITORY) -> tuple[str, str, str]:
    """What runs `nwfilter-hook` of that source tree, with the Python that runs the tests."""
    code = f"import sys; sys.path.insert(0, {str(tree)!r}); from nwfilter_hook.cli.main import main; main()"
    return sys.executable, "-c", code


class Guest:
    """
    The far end of a tap.

    Args:
        device: "/dev/net/tun" creates `tap` in the caller's network namespace and holds it open; "/dev/tapN"
        opens
            the macvtap device that exists as interface number N.
    """

    def __init__(self, tap: str, device: str = "/dev/net/tun") -> None:
        self.tap = tap
        self._fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        request = struct.pack("16sH22x", os.fsencode(tap), IFF_TAP | IFF_NO_PI)
        try:
            fcntl.ioctl(self._fd, TUNSETIFF, request)
        except OSError:
            os.close(self._fd)
            raise

    def send(self, frame: bytes) -> None:
        """Send `frame`; when this returns it has arrived wherever it will arrive."""
        os.write(self._fd, frame)

    def receive(self, timeout_s: float = 0) -> list[bytes]:
        """All frames that arrived since the last call; waits up to `timeout_s` for the first."""
        frames = []
        if timeout_s:
            select.select([self._fd], [], [], timeout_s)
        while True:
            try:
                frames.append(os.read(self._fd, LONGEST_FRAME))
            except BlockingIOError:
                return frames

    def fileno(self) -> int:
        """The open descriptor: what is written to it, the guest sends."""
        return self._fd

    def close(self) -> None:
        """Unplug: the tap disappears from the host."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True)
class CountedRule:
    """
    One rule of our tables as the kernel lists it.

    Attributes:
        chain, handle: where it is; together its identity.
        comment: "FILTER:LINE", or "" without one.
        verdict: "accept", "drop", "return" …, "jump" for any jump, "" for none.
        packets: what its counter shows, None without a counter.
    """

    chain: str
    handle: int
    comment: str
    verdict: str
    packets: int | None

    @property
    def tap(self) -> str:
        """Whose chain it is in; "" for a base chain."""
        return [*self.chain.split("/"), ""][1]

    @property
    def final(self) -> bool:
        """Does a frame that matches go no further in this base chain?"""
        return self.verdict in ("accept", "drop", "reject")


@dataclass(frozen=True)
class Fate:
    """
    What became of a frame.

    Attributes:
        passed: it arrived where it was looked for. decided_by: the comments of the rules with a final verdict
        that counted it, of the taps at both ends. They
            tell the truth only if every rule has a counter (`counters = all`). Empty where no rule decided;
            several where the frame met several base chains: one per layer, and one at each filtered end.
    """

    passed: bool
    decided_by: tuple[str, ...]


VERDICTS = ("accept", "drop", "reject", "return", "continue", "jump", "goto")


def _counted_rule(rule: Mapping[str, Any]) -> CountedRule:
    """A `CountedRule` from the "rule" object of nft's JSON."""
    # what nft has no JSON for is text
    parts = [expression for expression in rule["expr"] if isinstance(expression, dict)]
    words = {word: expression[word] for expression in parts for word in expression}
    counter = words.get("counter")
    return CountedRule(
        chain=rule["chain"],
        handle=rule["handle"],
        comment=rule.get("comment", ""),
        verdict=next((word for word in VERDICTS if word in words), ""),
        packets=counter["packets"] if isinstance(counter, dict) else None,
    )


@final
class Wire:
    """
    A bridge with taps, in a network namespace that ends with the `with` block.

    The bridge floods every frame to every port (ageing_time 0, no multicast snooping), so that no verdict
    depends on what it has learned, and the namespace has IPv6 switched off for itself, so that no frame is on
    the wire but those of the test. Frames of guests pass whatever their protocol.

    Args:
        taps: in the bridge from the beginning; where a test doesn't say otherwise, "vnet0" sends and
            "vnet1" watches.
        br_netfilter: bridged packets also meet iptables, where the kernel can do that. It drops malformed
            IP headers by itself, so it is off.
    """

    def __init__(self, taps: Sequence[str] = ("vnet0", "vnet1"), *, br_netfilter: bool = False) -> None:
        self.guests: dict[str, Guest] = {}
        self._first_taps = tuple(taps)
        self._br_netfilter = br_netfilter
        self._conf: str | None = None
        self._host: socket.socket | None = None

    def __enter__(self) -> Wire:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._namespace = new_network_namespace()
        self._directory = tempfile.TemporaryDirectory(prefix="nwfilter-wire-")
        self.directory = Path(self._directory.name)
        try:
            with self.inside():
                _write_sysctl("ipv6/conf/default/disable_ipv6", 1)
                for protocol in ("arptables", "iptables", "ip6tables"):
                    _write_sysctl(f"bridge/bridge-nf-call-{protocol}", int(self._br_netfilter))
            self.ip("link set lo up")
            self.add_bridge(BRIDGE)
            self.plug(*self._first_taps)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for guest in self.guests.values():
            guest.close()
        if self._host is not None:
            self._host.close()
        os.close(self._namespace)
        os.close(self._home)
        self._directory.cleanup()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in the wire's namespace meanwhile: sockets, /proc/sys/net, new processes."""
        _call("setns", self._namespace, CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", self._home, CLONE_NEWNET)

    def run(
        self,
        *command: str | Path,
        stdin: str | None = None,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 60,
        own_sysfs: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run `command` in the wire's namespace, with / as its directory.

        Args:
            own_sysfs: /sys/class/net shows the wire's devices too; otherwise the host's.
        """
        with self.inside():
            process = subprocess.Popen(
                [os.fspath(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="surrogateescape",
                cwd="/",
                env=environment,
                preexec_fn=_mount_own_sysfs if own_sysfs else None,
            )
        with process:
            try:
                stdout, stderr = process.communicate(stdin or "", timeout=timeout_s)
            except BaseException:
                process.kill()
                raise
        finished = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
        if check and finished.returncode != 0:
            raise AssertionError(f"{finished.args} ended with {finished.returncode}: {finished.stderr}")
        return finished

    def start_process(
        self, *command: str | Path, environment: Mapping[str, str], output: Path
    ) -> subprocess.Popen[bytes]:
        """Start `command` in the wire's namespace, with its /sys; what it prints goes to a file. The caller ends it."""
        with self.inside(), output.open("ab") as file:
            return subprocess.Popen(
                [os.fspath(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd="/",
                env=environment,
                preexec_fn=_mount_own_sysfs,
            )

    def ip(self, *lines: str) -> None:
        """Carry out lines of `ip -batch`."""
        self.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")

    # Bridges and taps

    def add_bridge(self, name: str) -> None:
        """Create another bridge that floods."""
        options = "ageing_time 0 stp_state 0 forward_delay 0 mcast_snooping 0"
        self.ip(f"link add {name} type bridge {options}", f"link set {name} up")

    def plug(self, *taps: str, bridge: str | None = BRIDGE) -> None:
        """Create `taps`, with a guest at the end of each, up and in `bridge`, or in none."""
        for tap in taps:
            with self.inside():
                self.guests[tap] = Guest(tap)
        port = ["master", bridge] if bridge is not None else []
        for tap in taps:
            self.run("ip", "link", "set", "dev", tap, *port, "up")
        self._discard(taps)

    def plug_macvtap(self, tap: str, mac: str, lower: str, *, mode: str = "bridge") -> None:
        """
        Create the macvtap device `tap` with a guest on top of `lower`, an unbridged tap that is made unless there is
        one.

        The guest of `lower` is the network outside. It receives what the guest of `tap` sends; unicast frames
        that it sends arrive at once, broadcast ones a little later.

        Args:
            mode: as in <source mode='…'/>, with the kernel's name for the last: bridge, vepa, private, passthru.
        """
        if lower not in self.guests:
            self.plug(lower, bridge=None)
        self.ip(
            f"link add link {lower} name {tap} type macvtap mode {mode}",
            f"link set {tap} address {mac} up",
        )
        with self.inside():
            self.guests[tap] = Guest(tap, f"/dev/tap{socket.if_nametoindex(tap)}")
        self._discard((tap, lower))

    def unplug(self, *taps: str) -> None:
        """Remove `taps` from the host, as it happens when QEMU ends."""
        for tap in taps:
            self.guests.pop(tap).close()

    def _discard(self, taps: Sequence[str]) -> None:
        for tap in taps:
            self.guests[tap].receive()

    # Frames

    def arrivals(self, frame: bytes, sender: str = "vnet0") -> frozenset[str]:
        """The taps whose guests receive exactly `frame` when the guest of `sender`, or on BRIDGE the host, sends it."""
        self._discard(tuple(self.guests))
        if sender == BRIDGE:
            self._host_sends(frame)
        else:
            self.guests[sender].send(frame)
        return frozenset(tap for tap, guest in self.guests.items() if frame in guest.receive())

    def _host_sends(self, frame: bytes) -> None:
        if self._host is None:
            with self.inside():
                self._host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
                self._host.bind((BRIDGE, 0))
        self._host.send(frame)

    def passes(self, frame: bytes, sender: str = "vnet0", to: str = "vnet1") -> bool:
        """Does `frame`, sent by the guest of tap `sender`, reach the guest of tap `to`?"""
        return to in self.arrivals(frame, sender)

    # nft

    def nft(self, *arguments: str, check: bool = True) -> str:
        """What `nft` prints."""
        return self.run("nft", *arguments, check=check).stdout

    def apply(self, script: str) -> None:
        """Carry out `script` in one transaction."""
        self.run("nft", "-f", "-", stdin=script)

    def ruleset(self) -> str:
        """Everything nft knows in the wire's namespace, without what counts or is learned."""
        return self.nft("--stateless", "--terse", "list", "ruleset")

    def rules(self, family: str = "bridge") -> list[CountedRule]:
        """Every rule of table `family` nwfilter; none where there is no such table."""
        listing = self.run("nft", "--json", "list", "table", family, "nwfilter", check=False)
        if listing.returncode != 0:
            return []
        objects = json.loads(listing.stdout)["nftables"]
        return [_counted_rule(item["rule"]) for item in objects if "rule" in item]

    def fate(self, frame: bytes, sender: str = "vnet0", to: str = "vnet1") -> Fate:
        """Does `frame`, sent by the guest of `sender`, reach the guest of `to`, and by which rules?"""
        before = {(rule.chain, rule.handle): rule.packets for rule in self._rules_of_filters()}
        passed = self.passes(frame, sender, to)
        moved = (
            rule
            for rule in self._rules_of_filters()
            if rule.final and rule.packets != before.get((rule.chain, rule.handle), 0)
        )
        return Fate(passed, tuple(rule.comment for rule in moved if rule.tap in (sender, to)))

    def _rules_of_filters(self) -> list[CountedRule]:
        """Those that come from a line of a filter, in both tables: what is sent to a bridge itself meets ingress."""
        return [rule for family in ("bridge", "netdev") for rule in self.rules(family) if ":" in rule.comment]

    # The libvirt hook

    def configure(self, text: str = "", *, filter_dirs: Sequence[Path] = (), counters: str | None = None) -> None:
        """
        Write the configuration file of the next hooks; without this, one with a state directory only.

        Args:
            text: further sections, verbatim.
            filter_dirs: looked up before the stock filters.
        """
        lines = ["[paths]", f"state_dir = {self.state_dir}"]
        if filter_dirs:
            lines.append(f"filter_dirs = {':'.join(map(str, [*filter_dirs, REPOSITORY / 'filters']))}")
        if counters:
            lines += ["[nftables]", f"counters = {counters}"]
        self._conf = "\n".join([*lines, text, ""])

    @property
    def state_dir(self) -> Path:
        """Where the hooks of this wire keep their records."""
        return self.directory / "state"

    def hook_environment(self) -> dict[str, str]:
        """The environment that libvirt gives to a hook, and the wire's own configuration file."""
        if self._conf is None:
            self.configure()
        assert self._conf is not None
        path = self.directory / "nwfilter-hook.conf"
        path.write_text(self._conf)
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C",
            "NWFILTER_HOOK_CONF": str(path),
        }

    def hook(
        self, guest: str, operation: str, xml: str, *, suboperation: str = "begin", extra: str = "-"
    ) -> subprocess.CompletedProcess[str]:
        """Run hooks/qemu as libvirt runs it, whatever its exit status."""
        return self.run(
            REPOSITORY / "hooks" / "qemu",
            guest,
            operation,
            suboperation,
            extra,
            stdin=xml,
            check=False,
            environment=self.hook_environment(),
            own_sysfs=True,
        )

    def command(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `nwfilter-hook`, whatever its exit status."""
        return self.run(
            *command_line(),
            *arguments,
            check=False,
            environment=environment or self.hook_environment(),
            own_sysfs=True,
        )

    def start(self, guest: str, xml: str) -> None:
        """The operation `start`, which must succeed without a word."""
        self._must(guest, "start", xml, suboperation="begin")

    def stop(self, guest: str, xml: str) -> None:
        """The operations `stopped` and `release`, which must succeed without a word."""
        self._must(guest, "stopped", xml, suboperation="end")
        self._must(guest, "release", xml, suboperation="end")

    def _must(self, guest: str, operation: str, xml: str, *, suboperation: str) -> None:
        finished = self.hook(guest, operation, xml, suboperation=suboperation)
        if finished.returncode != 0 or finished.stdout or finished.stderr:
            raise AssertionError(f"{operation} of {guest} ended with {finished.returncode}: {finished!r}")
