"""adopt with hundreds of guests: a bar shows how far it is; killed on the way, it goes on. libvirt is faked."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from nwfilter_hook.nftables.netlink import read_verdicts
from tests.libvirt.conftest import CONFIGURATION, REPOSITORY, STATE_DIR, Host, configuration
from tests.support.domains import domain, interface, uuid_of
from tests.support.libvirtd import wait_for

pytestmark = pytest.mark.libvirt

GUESTS = 300
KILLED_AT = (20, 250)
FAKED = "/run/libvirt-faked"
STOCK = sorted((REPOSITORY / "filters").glob("*.xml"))
MINE = """<filter name='mine' chain='root'>
  <filterref filter='clean-traffic'/>
  <rule action='drop' direction='out'><tcp dstportstart='25'/></rule>
</filter>
"""


def enough(records: Path, number: int) -> bool:
    """Whether there are so many records."""
    return records.is_dir() and len(list(records.iterdir())) >= number


def tap(number: int) -> str:
    """Of the guest of this number."""
    return f"vnet{number}"


@pytest.fixture
def host() -> Iterator[Host]:
    """Hundreds of taps in a bridge, their guests known to libvirt, under two filters; the hook is installed."""
    host = Host()
    try:
        host.add_network()
        host.ip(
            *(
                line
                for n in range(GUESTS)
                for line in (f"tuntap add {tap(n)} mode tap", f"link set {tap(n)} master br0")
            )
        )
        host.run("make", "--silent", "-C", str(REPOSITORY), "hook")
        host.write(CONFIGURATION, configuration())
        for path in STOCK:
            host.write(f"{FAKED}/nwfilter/{path.name}", path.read_text())
        host.write(f"{FAKED}/nwfilter/mine.xml", MINE)
        for number in range(GUESTS):
            name, address = f"guest-{number}", f"10.0.{number >> 8}.{number & 255}"
            mac = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
            reference = interface(tap(number), ("clean-traffic", "mine")[number % 2], [("IP", address)], mac=mac)
            host.write(f"{FAKED}/{uuid_of(name)}.xml", domain(name, [reference]))
        yield host
    finally:
        host.close()


def test_hundreds_of_guests(host: Host) -> None:
    """At the end each has its rules, and libvirt's filters are twins."""
    fake = REPOSITORY / "tests/support/fake_libvirt"
    command = [
        "env",
        f"PYTHONPATH={fake}:{REPOSITORY}",
        f"FAKE_LIBVIRT={FAKED}",
        "COLUMNS=100",
        "TERM=xterm",
    ]
    command += [sys.executable, "-m", "nwfilter_hook", "adopt", "--yes"]
    records = host.path(f"{STATE_DIR}/domains")
    for reached in KILLED_AT:
        with host.path("/run/adopt.log").open("wb") as output:
            process = host.start_process(command, output)
        wait_for("some guests", partial(enough, records, reached), 60)
        process.kill()
        process.wait()
        host.run("pkill", "-f", "nwfilter_hook adopt", check=False)
    done = host.run("script", "--quiet", "--return", "--command", shlex.join(command), "/dev/null", timeout_s=300)
    assert f"adopted: {GUESTS} guests under rules of ours" in done.stdout
    assert "guest guest-2" in done.stdout, "the bar"
    with host.inside_network():
        led = set(read_verdicts("from-guest-l2"))
    assert led == {tap(number) for number in range(GUESTS)}
    assert 'filter name="mine"' in host.path(f"{FAKED}/nwfilter/mine.xml").read_text().replace("'", '"')
    assert "<rule" not in host.path(f"{FAKED}/nwfilter/mine.xml").read_text()
