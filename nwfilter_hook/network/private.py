"""
A bridge with three taps in a network namespace of this process alone: what is sent there, nobody else sees.

In:  nothing. Out: taps by name that send frames; all is gone when the process ends, or at `close`.

tun(4), include/uapi/linux/if_tun.h; unshare(2), setns(2): in Python since 3.12.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess

from ..base.errors import NwfilterHookError, SystemErrorAs

GUEST, OUTSIDE, ASIDE = "vnet0", "peer", "aside"
"""The tap under filter; who sends to it; who opens connections of which the filter sees nothing."""

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x0002 | 0x1000
_SETTINGS = {
    # br_netfilter would drop malformed packets behind the rules, and is on in every new namespace (kernel 5.3)
    **{f"bridge/bridge-nf-call-{each}": "0" for each in ("iptables", "ip6tables", "arptables")},
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "netfilter/nf_conntrack_tcp_be_liberal": "1",
}
_FORGET = struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 1, 0, 0, 0, 0)  # IPCTNL_MSG_CT_DELETE of all, NLM_F_ACK
_LONGEST_ANSWER = 4096
_LONGEST_FRAME = 1 << 17


class PrivateBridge:
    """
    See the module. This process is in the namespace until `close`.

    Raises:
        NwfilterHookError: there is no right to make one, or no program `ip`.
    """

    def __init__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._files: dict[str, int] = {}
        try:
            _call("unshare", _CLONE_NEWNET)
            self._make()
        except OSError as error:
            self.close()
            raise NwfilterHookError(f"no network of its own can be made: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def send(self, tap: str, frame: bytes) -> None:
        """What is behind `tap` sends a frame. Raises NwfilterHookError: it is none for a tap."""
        with SystemErrorAs(NwfilterHookError, f"a frame of {len(frame)} octets can't be sent"):
            os.write(self._files[tap], frame)

    def received(self, tap: str) -> list[bytes]:
        """
        What has come to it since this was asked last.

        A frame that gets there has done so when `send` returns: drivers/net/tun.c hands it on in the writer's context.
        """
        found = []
        while True:
            try:
                found.append(os.read(self._files[tap], _LONGEST_FRAME))
            except BlockingIOError:
                return found

    def index(self, tap: str) -> int:
        """Of its device."""
        return socket.if_nametoindex(tap)

    def forget(self) -> None:
        """There are no connections any more."""
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12) as asked:  # NETLINK_NETFILTER
            asked.send(_FORGET)
            asked.recv(_LONGEST_ANSWER)

    def close(self) -> None:
        """Back where the process was."""
        for file in self._files.values():
            os.close(file)
        self._files = {}
        _call("setns", self._home, _CLONE_NEWNET)
        os.close(self._home)

    def _make(self) -> None:
        for name, value in _SETTINGS.items():
            path = f"/proc/sys/net/{name}"
            if os.path.exists(path):
                with open(path, "w", encoding="ascii") as setting:
                    setting.write(value)
        _ip("link", "set", "lo", "up")
        # every frame goes to every port
        _ip("link", "add", "br0", "type", "bridge", "ageing_time", "0", "stp_state", "0", "mcast_snooping", "0")
        _ip("link", "set", "br0", "up")
        for tap in (GUEST, OUTSIDE, ASIDE):
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            self._files[tap] = file
            fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", tap.encode(), _IFF_TAP_NO_PI))
            _ip("link", "set", tap, "master", "br0", "up")


def _ip(*arguments: str) -> None:
    try:
        command = ["ip", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - words of our own
    except OSError as error:
        raise NwfilterHookError(f"ip can't be started: {error.strerror}; install the package iproute2") from error
    if done.returncode != 0:
        raise NwfilterHookError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _call(function: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        error = os.strerror(ctypes.get_errno())
        raise NwfilterHookError(f"no network of its own can be made: {error}; run this as root")
