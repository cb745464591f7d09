"""
A host of the tests' own, with a libvirtd that shares nothing with the machine's.

`PrivateHost` is one process with a mount, network and PID namespace of its own. /etc is a copy and /run, libvirt's
directories are empty tmpfs, so nothing of it reaches the machine's disk, and whatever is
left when that process ends (a daemon, a guest, a bridge) the kernel takes away with it. The process ends when its
standard input closes, so also when pytest is killed.

Tests run outside and look in: `PrivateHost.root` is its file system, `PrivateHost.run()` starts a command inside,
`PrivateHost.frame_socket()` opens a raw socket there.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, TypeVar

from tests.support.guest import mark_of

T = TypeVar("T")

# Everything polls, so a slow machine costs time only where something is wrong.
PATIENCE_S = 60.0
ETH_P_ALL = 3
PACKET_OUTGOING = 4
CLONE_NEWNET = 0x40000000

TOOLS = {  # program -> Debian package
    "libvirtd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "pgrep": "procps",
}

# Runs as process 1 of the new PID namespace. /proc is still the machine's in its second line, so the number printed
# is the one by which the tests know this process. SIGCHLD ignored: what daemons leave behind is reaped at once, or
# libvirt would take a dead QEMU for one that can't be killed.
SETUP = r"""
set -eu
read -r pid _ </proc/self/stat
mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 nwfilter-hook-test /mnt
cp -a /etc/. /mnt/
rm -rf /mnt/libvirt /mnt/nwfilter-hook
mkdir -p /mnt/libvirt /mnt/nwfilter-hook
mount --move /mnt /etc
for directory in /run /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p "$directory"
    mount -t tmpfs -o mode=755 nwfilter-hook-test "$directory"
done
mkdir -p /run/lock
ip link set lo up
for sysctl in ipv6/conf/all/disable_ipv6=1 ipv6/conf/default/disable_ipv6=1 \
    bridge/bridge-nf-call-iptables=0 bridge/bridge-nf-call-ip6tables=0 bridge/bridge-nf-call-arptables=0; do
    test ! -e "/proc/sys/net/${sysctl%=*}" || echo "${sysctl#*=}" >"/proc/sys/net/${sysctl%=*}"
done
echo "$pid"
exec /usr/bin/python3 -IS -c '
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
sys.stdin.read()
'
"""

# No cgroups, namespaces, labels or virtlogd: what a private host has none of.
QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""
LIBVIRTD_CONF = """\
auth_unix_rw = "none"
log_level = 3
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""


def require(tools: dict[str, str]) -> None:
    """Fail, with the names of the Debian packages, if one of `tools` is missing."""
    missing = sorted({package for tool, package in tools.items() if _which(tool) is None})
    if missing:
        raise RuntimeError(f"these tests need more Debian packages: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise RuntimeError("these tests make namespaces, bridges and guests: run them as root")


def _which(tool: str) -> str | None:
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def wait_for(what: str, probe: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """
    Call `probe` until it returns something true, and return that.

    Raises:
        AssertionError: it never did; the message says `what` was waited for and what came last.
    """
    end = time.monotonic() + patience_s
    while True:
        result = probe()
        if result:
            return result
        assert time.monotonic() < end, f"{what}: still {result!r} after {patience_s:.0f} s"
        time.sleep(0.05)


class PrivateHost:
    """
    Mount, network and PID namespaces with nothing in them; see the module.

    Attributes:
        root: the private file system seen from outside, e.g. `root / "run/nwfilter-hook"`.
    """

    def __init__(self) -> None:
        require(TOOLS)
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", SETUP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=_environment(),
        )
        assert self._process.stdout
        assert self._process.stderr
        pid = self._process.stdout.readline().strip()
        if not pid:
            self._process.wait()
            raise RuntimeError(f"no private namespaces here: {self._process.stderr.read().strip()}")
        self._pid = pid
        self.root = Path("/proc", pid, "root")

    def close(self) -> None:
        """End every process inside; the kernel removes the rest."""
        self._process.kill()  # unshare --kill-child passes it on to process 1, and that to all
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    def path(self, inside: str) -> Path:
        """Where the file that is `inside` there is seen from outside."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file there, with the directories above it."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(
        self, *command: str, check: bool = True, stdin: str = "", timeout_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """
        Run a command there.

        Raises:
            AssertionError: it failed although `check`; the message holds what it said.
        """
        done = subprocess.run(
            ["nsenter", "--target", self._pid, "--mount", "--net", "--pid", "--", *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=_environment(),
            check=False,
        )
        if check:
            said = (done.stdout + done.stderr).strip()
            assert done.returncode == 0, f"{' '.join(command)} -> {done.returncode}: {said}"
        return done

    def start_process(self, command: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a command there that goes on; what it prints goes to `output`. It ends with the host."""
        return subprocess.Popen(
            ["nsenter", "--target", self._pid, "--mount", "--net", "--pid", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(),
        )

    def ip(self, *lines: str) -> None:
        """Run `ip` commands there in one go."""
        self.run("ip", "-batch", "-", stdin="".join(f"{line}\n" for line in lines))

    def interfaces(self) -> set[str]:
        """Names of the network interfaces that exist there now."""
        return {link["ifname"] for link in json.loads(self.run("ip", "-json", "link").stdout)}

    @contextmanager
    def inside_network(self) -> Iterator[None]:
        """The calling thread is in the private network meanwhile."""
        libc = ctypes.CDLL(None, use_errno=True)
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self._pid}/ns/net", os.O_RDONLY)
        try:
            for namespace in (there, before):
                if libc.setns(namespace, CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), "setns")
                if namespace == there:
                    yield
        finally:
            os.close(there)
            os.close(before)

    def open_socket(self, make: Callable[[], socket.socket]) -> socket.socket:
        """Call `make` in the private network; the socket it returns stays there, the caller doesn't move."""

        def make_inside() -> socket.socket:
            with self.inside_network():
                return make()

        # A thread of its own: one that can't come back from the namespace must not go on as ours.
        with ThreadPoolExecutor(max_workers=1) as pool:
            return pool.submit(make_inside).result()

    def wire(self, interface: str) -> Wire:
        """A raw socket on `interface`."""

        def make() -> socket.socket:
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            raw.bind((interface, 0))
            return raw

        return Wire(self.open_socket(make))

    def listener(self, interface: str, port: int) -> Listener:
        """A UDP socket that hears what comes in by `interface` for the host itself."""

        def make() -> socket.socket:
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            udp.bind(("0.0.0.0", port))
            return udp

        return Listener(self.open_socket(make))


class Wire:
    """Frames that arrived at one interface since this was made."""

    def __init__(self, raw: socket.socket) -> None:
        self._socket = raw
        self._heard: list[bytes] = []
        raw.setblocking(False)

    def send(self, frame: bytes) -> None:
        """Send one frame as it is."""
        self._socket.send(frame)

    def heard(self, frame: bytes) -> bool:
        """Whether the marked `frame` (`tests.support.guest.mark`) has arrived by now."""
        while True:
            try:
                received, address = self._socket.recvfrom(65536)
            except BlockingIOError:
                break
            if address[2] != PACKET_OUTGOING:
                self._heard.append(received)
        # The mark, not the frame: the kernel takes a VLAN tag out of what it hands to a raw socket.
        return any(mark_of(frame) in received for received in self._heard)

    def close(self) -> None:
        """Forget it all."""
        self._socket.close()


class Listener:
    """Datagrams that the host took for itself, told apart by the port they came from."""

    def __init__(self, udp: socket.socket) -> None:
        self._socket = udp
        self._heard: set[int] = set()
        udp.setblocking(False)

    def heard(self, source_port: int) -> bool:
        """Whether a datagram from `source_port` has arrived by now."""
        while True:
            try:
                _, address = self._socket.recvfrom(65536)
            except BlockingIOError:
                break
            self._heard.add(address[1])
        return source_port in self._heard

    def close(self) -> None:
        """Forget it all."""
        self._socket.close()


class Libvirtd:
    """
    libvirtd on a private host, not running until `start()`.

    Files of the administrator (hooks, filters) go into /etc/libvirt there before it starts.
    """

    PID_FILE = "/run/libvirtd-test.pid"
    LOG = "/var/log/libvirt/libvirtd.log"

    def __init__(self, host: PrivateHost) -> None:
        self.host = host
        host.write("/etc/libvirt/qemu.conf", QEMU_CONF)
        host.write("/etc/libvirt/libvirtd.conf", LIBVIRTD_CONF)

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        daemon = self.host.run("libvirtd", "--daemon", "--pid-file", self.PID_FILE, check=False)
        assert daemon.returncode == 0, f"libvirtd: {daemon.stderr.strip()}\n{self.log()}"
        answer = self.virsh("list", check=False)
        assert answer.returncode == 0, f"{answer.stderr.strip()}\n{self.log()}"

    def stop(self) -> None:
        """Stop the daemon; guests go on."""
        pid = self.host.path(self.PID_FILE).read_text().strip()
        self.host.run("kill", pid)
        wait_for("libvirtd ends", lambda: not self.host.path(f"/proc/{pid}").exists())

    def virsh(self, *command: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one virsh command."""
        # The slowest of them, a restore or a start beside a busy machine, takes seconds.
        return self.host.run(
            "virsh",
            "--connect",
            "qemu:///system",
            *command,
            check=check,
            stdin=stdin,
            timeout_s=3 * PATIENCE_S,
        )

    def log(self) -> str:
        """The last of what the daemon logged."""
        path = self.host.path(self.LOG)
        return "\n".join(path.read_text(errors="replace").splitlines()[-40:]) if path.exists() else ""


class Kernel:
    """What nftables holds on a private host, in our tables."""

    TABLES = (("bridge", "nwfilter"), ("netdev", "nwfilter"))

    def __init__(self, host: PrivateHost) -> None:
        self._host = host

    def objects(self) -> list[dict[str, Any]]:
        """Every object of our tables as `nft -j` lists it, without the wrappers: {"type": "chain", ...}."""
        found: list[dict[str, Any]] = []
        for family, name in self.TABLES:
            listed = self._host.run("nft", "-j", "list", "table", family, name, check=False)
            if listed.returncode != 0:
                assert "No such file or directory" in listed.stderr, listed.stderr
                continue
            for entry in json.loads(listed.stdout)["nftables"]:
                ((kind, value),) = entry.items()
                if kind != "metainfo":
                    found.append({"type_": kind, **value})
        return found

    def chains(self, tap: str) -> set[str]:
        """Names of the chains that belong to `tap` and no other."""
        return {o["name"] for o in self.objects() if o["type_"] == "chain" and tap in o["name"].split("/")}

    def rules(self, tap: str) -> list[dict[str, Any]]:
        """The rules in the chains of `tap`, chain by chain, without handles and counts: comparable over time."""
        found = [
            {key: value for key, value in _without_counts(o).items() if key != "handle"}
            for o in self.objects()
            if o["type_"] == "rule" and tap in o["chain"].split("/")
        ]
        # nft lists chains in the order they were made in; the order of rules is only of meaning within one.
        return sorted(found, key=itemgetter("chain"))

    def addresses(self, tap: str, *of: str) -> list[str]:
        """Which of these IPv4 addresses the rules of `tap` ask for, as addresses or as the numbers that they are."""
        text = json.dumps(self.rules(tap))
        return [each for each in of if re.search(rf'"{re.escape(each)}"|\b{int(IPv4Address(each))}\b', text)]

    def traces(self, tap: str) -> list[str]:
        """Everything that mentions `tap`: its chains and sets by name, map elements, rules by chain."""
        found = []
        for o in self.objects():
            name = o.get("name") or o.get("chain") or ""
            if tap in name.split("/") or f'"{tap}"' in json.dumps(o):
                found.append(f"{o['type_']} {name}")
        return found

    def flush(self) -> None:
        """Take our tables away, as another program's `nft flush ruleset` does."""
        for family, name in self.TABLES:
            self._host.run("nft", "add", "table", family, name)
            self._host.run("nft", "delete", "table", family, name)


def _without_counts(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_counts(v) for k, v in value.items() if k not in ("packets", "bytes")}
    if isinstance(value, list):
        return [_without_counts(v) for v in value]
    return value


def _environment(extra: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """Ours with the C locale, and with the directories of administrators' programs in PATH."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return {**os.environ, "LC_ALL": "C", "PATH": path, **dict(extra)}
