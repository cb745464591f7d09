"""libvirt's own driver beside our hook, so many taps under each one's filter; making them takes it some minutes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click

from tests.bench.figures import Figure, compare
from tests.bench.guests import Guests, address, mac
from tests.support.libvirtd import Libvirtd

VIRSH = "/usr/bin/virsh"


def against_libvirt(taps: int, rounds: int) -> Iterator[Figure]:
    """One binding is made, and one guest started."""
    stock = Path("/etc/libvirt/nwfilter")
    if not stock.is_dir():
        raise click.ClickException("libvirt's own filters (package libvirt-daemon-config-nwfilter) are not here")
    with closing(Guests(taps + 1)) as guests:
        libvirtd = Libvirtd(guests.host)
        for path in stock.glob("*.xml"):
            guests.host.write(f"/etc/libvirt/nwfilter/{path.name}", path.read_text())
        libvirtd.start()

        def bind(number: int) -> float:
            name = f"/run/binding-{number}.xml"
            guests.host.write(
                name,
                f"<filterbinding><owner><name>guest-{number}</name><uuid>{uuid.UUID(int=number + 1)}</uuid></owner>"
                f"<portdev name='vnet{number}'/><mac address='{mac(number)}'/><filterref filter='clean-traffic'>"
                f"<parameter name='IP' value='{address(number)}'/></filterref></filterbinding>",
            )
            return guests.ms(([VIRSH, "-c", "qemu:///system", "nwfilter-binding-create", name], "/dev/null"))

        def theirs() -> float:
            took = bind(taps)
            libvirtd.virsh("nwfilter-binding-delete", f"vnet{taps}")
            return took

        def ours() -> float:
            took = guests.ms(guests.hook(taps, "start"))
            guests.run([guests.hook(taps, "stopped")])
            return took

        for number in range(taps):
            bind(number)
        guests.fill(taps)
        yield compare(
            f"libvirt: nwfilter-binding-create at {taps} taps",
            "our hook's start",
            theirs,
            ours,
            goal=30,
            rounds=rounds,
            more=True,
        )
