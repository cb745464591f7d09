"""
libvirt's own rules in force on a tap, and frames through them.

`Bench` is a bridge on a private host (tests.support.libvirtd), with a guest's tap and two unfiltered ones as a `Wire`
has them, and br_netfilter on, since libvirt's layer 3 rules are iptables's. Two ways lead to libvirt's rules:

    bind()      libvirtd puts a filter on the tap, `virsh nwfilter-binding-create`
    carry_out() commands of libvirt's test suite (ebtables, iptables, ip6tables), between chains as libvirt has them
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from xml.sax.saxutils import quoteattr

from tests.conformance.filters import MAC, TAP
from tests.conformance.kernel import TAPS
from tests.conformance.states import Case, Observation, Tracker, observe, oracle
from tests.support.libvirtd import Libvirtd, PrivateHost
from tests.support.netns import BRIDGE, Guest

Parameters = Mapping[str, tuple[str, ...]]

_SETUP = f"""
ebtables -t nat -F; ebtables -t nat -X; iptables -F; iptables -X; ip6tables -F; ip6tables -X
ebtables -t nat -N libvirt-J-{TAP} -P RETURN; ebtables -t nat -N libvirt-P-{TAP} -P RETURN
ebtables -t nat -A PREROUTING -i {TAP} -j libvirt-J-{TAP}
ebtables -t nat -A POSTROUTING -o {TAP} -j libvirt-P-{TAP}
for tables in iptables ip6tables; do
    $tables -N FJ-{TAP}; $tables -N FP-{TAP}; $tables -N HJ-{TAP}
    $tables -A FORWARD -m physdev --physdev-in {TAP} -j FJ-{TAP}
    $tables -A FORWARD -m physdev --physdev-is-bridged --physdev-out {TAP} -j FP-{TAP}
done
"""


class Bench:
    """The private host; `guests` by tap, as a Wire has them."""

    def __init__(self, filters: Mapping[str, str]) -> None:
        """`filters`: what libvirt is to know, by name, as XML."""
        self.host = PrivateHost()
        self.guests: dict[str, Guest] = {}
        self.libvirtd = Libvirtd(self.host)
        for name, xml in filters.items():
            self.host.write(f"/etc/libvirt/nwfilter/{name}.xml", xml)
        self.host.ip(
            f"link add {BRIDGE} type bridge ageing_time 0 stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {BRIDGE} up",
        )
        with self.host.inside_network():
            for tap in TAPS:
                self.guests[tap] = Guest(tap)
        self.host.ip(*(f"link set {tap} master {BRIDGE} up" for tap in TAPS))
        for tables in ("iptables", "ip6tables"):
            self.host.run("sh", "-c", f"echo 1 >/proc/sys/net/bridge/bridge-nf-call-{tables}")
        self.host.run("nft", "-f", "-", stdin=oracle(("ip", "ip6")))
        self._tracker = Tracker(self)

    def inside(self) -> AbstractContextManager[None]:
        """The calling thread is in the bench's network namespace meanwhile."""
        return self.host.inside_network()

    def close(self) -> None:
        """Everything ends."""
        self._tracker.close()
        for guest in self.guests.values():
            guest.close()
        self.host.close()

    @contextmanager
    def bind(self, name: str, parameters: Parameters) -> Iterator[None]:
        """libvirt's driver filters the tap meanwhile."""
        given = "".join(
            f"<parameter name={quoteattr(key)} value={quoteattr(value)}/>"
            for key, values in parameters.items()
            for value in values
        )
        self.host.write(
            "/run/binding.xml",
            f"<filterbinding><owner><name>guest</name><uuid>11111111-2222-3333-4444-555555555555</uuid></owner>"
            f"<portdev name='{TAP}'/><mac address='{MAC}'/>"
            f"<filterref filter={quoteattr(name)}>{given}</filterref></filterbinding>",
        )
        self.libvirtd.virsh("nwfilter-binding-create", "/run/binding.xml")
        try:
            yield
        finally:
            self.libvirtd.virsh("nwfilter-binding-delete", TAP)

    def carry_out(self, commands: str) -> None:
        """Put the commands of an .args file in force, in the place of all that was."""
        lines = [shlex.join(shlex.split(line)) for line in commands.replace("\\\n", " ").splitlines()]
        self.host.run("sh", "-ec", "\n".join([_SETUP.replace("ebtables -t nat -X", "ebtables -t nat -X || :"), *lines]))

    def host_sends(self, frame: bytes) -> bool:
        """Does a frame that the host itself sends reach the guest?"""
        with self.inside():
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            raw.bind((BRIDGE, 0))
        self.guests[TAP].receive()
        raw.send(frame)
        raw.close()
        return frame in self.guests[TAP].receive()

    def observe(self, case: Case) -> Observation | None:
        """What libvirt's rules make of a frame."""
        return observe(self, self._tracker, TAP, case)


def stock_definitions(directory: Path) -> dict[str, str]:
    """The filters in a directory, by name."""
    return {path.stem: path.read_text() for path in sorted(directory.glob("*.xml"))}
