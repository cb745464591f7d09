"""
adopt and unadopt beside a real libvirtd whose guests run under its own rules: at every step a flood of forbidden frames
meets at least one of both.

A host of its own: libvirt has its stock filters there, and the hook is installed when guests run already.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.libvirt.conftest import (
    ADMIN_FILTERS,
    CONFIGURATION,
    REPOSITORY,
    Guest,
    Guests,
    Host,
    Image,
    Link,
    configuration,
)
from tests.support.frames import GUEST, GUEST_IP, OTHER_IP, udp
from tests.support.guest import filterref_xml, guest_uuid, interface_xml, mark
from tests.support.libvirtd import Wire, wait_for

pytestmark = pytest.mark.libvirt

BR0 = "<source bridge='br0'/>"
CLEAN = filterref_xml("clean-traffic", ("IP", GUEST_IP))
SPOOFED = udp(src_ip=OTHER_IP)
RUN = "from nwfilter_hook.cli.main import main; main()"
LIBVIRTS_STOCK = Path("/usr/share/libvirt/nwfilter")
ADOPTED = "/etc/nwfilter-hook/adopted"
MINE = """<filter name='mine' chain='root'>
  <filterref filter='no-mac-spoofing'/><filterref filter='inner'/>
  <rule action='drop' direction='out' priority='500'><ip srcipaddr='$IP' match='no'/></rule>
</filter>"""
INNER = "<filter name='inner' chain='root'><rule action='accept' direction='out'><ip protocol='icmp'/></rule></filter>"

KILLED_AT = """
import os, sys
from nwfilter_hook.operations import adopt
from nwfilter_hook import libvirtd
left = int(sys.argv.pop())
def killing(function):
    def wrapped(*arguments, **keywords):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return function(*arguments, **keywords)
    return wrapped
adopt.define = killing(adopt.define)
adopt.follow = killing(adopt.follow)
adopt.remove = killing(adopt.remove)
adopt.undefine = killing(adopt.undefine)
libvirtd.LibvirtManager.define_filter = killing(libvirtd.LibvirtManager.define_filter)
"""
STARTED_MEANWHILE = """
import subprocess
from nwfilter_hook import libvirtd
once = []
plain = libvirtd.LibvirtManager.define_filter
def starting(self, xml):
    if not once:
        once.append(subprocess.run(["virsh", "start", "late"], check=True))
    return plain(self, xml)
libvirtd.LibvirtManager.define_filter = starting
"""


class Flooded:
    """A guest that sends a forbidden frame without end; the wire, which must never hear it."""

    def __init__(self, host: Host, guests: Guests, wire: Wire, guest: Guest) -> None:
        self.host, self.guests, self.wire, self.guest = host, guests, wire, guest
        self.frame = mark(SPOOFED)
        guest.shell.check(f"( while :; do frame send eth0 {self.frame.hex()}; done ) >/dev/null 2>&1 &")

    def sent(self) -> int:
        """How many frames have come to the tap."""
        return int(self.host.run("cat", f"/sys/class/net/{self.guest.tap}/statistics/rx_packets").stdout)

    def dry(self) -> None:
        """The flood goes on, and nothing of it has passed."""
        before = self.sent()
        wait_for("the flood", lambda: self.sent() > before + 5)
        assert not self.wire.heard(self.frame)

    def command(self, *arguments: str, before: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """`nwfilter-hook` on the host."""
        program = [sys.executable, "-c", before + RUN]
        return self.host.run("env", f"PYTHONPATH={REPOSITORY}", *program, *arguments, check=check, timeout_s=120)

    def libvirts_rules(self) -> bool:
        """Whether libvirt has rules for the tap."""
        return f"-{self.guest.tap}" in self.host.run("ebtables-save", check=False).stdout

    def our_rules(self) -> bool:
        """Whether we have."""
        return self.host.kernel.chains(self.guest.tap) != set()

    def filters(self) -> dict[str, str]:
        """libvirt's filters, by name."""
        lines = self.host.libvirtd.virsh("nwfilter-list").stdout.splitlines()[2:]
        names = [line.split()[1] for line in lines if line.strip()]
        return {name: self.host.libvirtd.virsh("nwfilter-dumpxml", name).stdout.strip() + "\n" for name in names}

    def report(self) -> dict[str, object]:
        """What adopt has written."""
        found: dict[str, object] = json.loads(self.host.path(f"{ADOPTED}/report.json").read_text())
        return found


@pytest.fixture(scope="module")
def flooded(image: Image) -> Iterator[Flooded]:
    """The guest runs under libvirt's rules; then our hook is installed, and libvirtd restarted."""
    host = Host()
    try:
        host.add_network()
        host.write(CONFIGURATION, configuration())
        host.path(ADMIN_FILTERS).mkdir(parents=True)
        host.path("/run/guests").mkdir(parents=True)
        for stock in LIBVIRTS_STOCK.glob("*.xml"):
            host.write(f"/etc/libvirt/nwfilter/{stock.name}", stock.read_text())
        host.libvirtd.start()
        for xml in (INNER, MINE):
            host.write("/run/filter.xml", xml)
            host.libvirtd.virsh("nwfilter-define", "/run/filter.xml")
        guests, wire = Guests(host, *image), host.wire("watch")
        guest = guests.boot("web", interface_xml(GUEST, BR0, reference=filterref_xml("mine", ("IP", GUEST_IP))))
        found = Flooded(host, guests, wire, guest)
        assert found.libvirts_rules()
        assert not found.our_rules()
        found.dry()
        host.run("make", "--silent", "-C", str(REPOSITORY), "hook")
        yield found
        found.guests.remove()
    finally:
        host.close()


def test_a_dry_run_changes_nothing(flooded: Flooded) -> None:
    """It says which filters come, and which become twins."""
    before = flooded.filters()
    done = flooded.command("adopt", "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1 guests, 1 of which run; ")
    assert [line for line in lines if line.startswith("into")] == ["into the library: inner", "into the library: mine"]
    assert "becomes a twin: mine" in lines
    assert "becomes a twin: clean-traffic" in lines
    assert lines[-1] == "dry run, nothing done"
    assert flooded.filters() == before
    assert not flooded.our_rules()
    assert not flooded.host.path(f"{ADOPTED}/report.json").exists()
    assert flooded.command("adopt", check=False).returncode == 1, "nobody there to say yes"
    assert flooded.filters() == before


def test_what_stands_in_the_way(flooded: Flooded) -> None:
    """A filter that doesn't compile, one that libvirt reads otherwise than it is written; two at once; wrong names."""
    host = flooded.host
    host.write(
        "/run/filter.xml", "<filter name='loose'><rule action='drop' direction='in'><ip dscp='$NO'/></rule></filter>"
    )
    host.libvirtd.virsh("nwfilter-define", "/run/filter.xml")
    flooded.guests.define("bad", interface_xml(GUEST, BR0, reference=filterref_xml("loose")))
    done = flooded.command("adopt", "--yes", check=False)
    assert (done.returncode, "nothing was done: bad: " in done.stderr, "$NO" in done.stderr) == (1, True, True), done
    host.libvirtd.virsh("undefine", "bad")
    inner = host.path("/etc/libvirt/nwfilter/inner.xml")
    inner.write_text(inner.read_text().replace("protocol='icmp'", "protocol='icmp' dstport='7'"))
    done = flooded.command("adopt", "--yes", check=False)
    assert done.returncode == 1
    assert "libvirt ignores: /etc/libvirt/nwfilter/inner.xml:" in done.stderr
    assert "unknown attribute 'dstport' on <ip>" in done.stderr
    assert flooded.command("adopt", "--dry-run", "--as-libvirt").returncode == 0
    inner.write_text(inner.read_text().replace(" dstport='7'", ""))
    host.path(ADOPTED).mkdir()
    with host.path(f"{ADOPTED}/lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = flooded.command("adopt", "--yes", check=False)
    assert (done.returncode, "another nwfilter-hook adopt or unadopt runs" in done.stderr) == (1, True), done
    assert "no filter has the name 'x y'" in flooded.command("adopt", "--yes", "--direct", "x y", check=False).stderr
    assert flooded.command("unadopt", "--yes", check=False).stderr.endswith("nothing is adopted here\n")
    assert flooded.libvirts_rules()
    assert not flooded.our_rules()
    flooded.dry()


def test_adopt_killed_at_every_step_and_done(flooded: Flooded) -> None:
    """The tap has libvirt's rules or ours whenever it ends; then it goes through, and once more changes nothing."""
    before = flooded.filters()
    done = flooded.command("adopt", "--yes", check=False)
    assert (done.returncode, "restart libvirtd (guests go on), then run adopt again" in done.stderr) == (1, True), done
    assert (flooded.libvirts_rules(), flooded.our_rules()) == (True, True)
    assert flooded.filters() == before
    flooded.host.libvirtd.stop()
    time.sleep(1.1)
    flooded.host.libvirtd.start()
    flooded.dry()
    flooded.command("replay", "web", "stopped")
    seen = set()
    for step in (0, 1, 2, 3, 4, 6):
        assert flooded.command("adopt", "--yes", str(step), before=KILLED_AT, check=False).returncode
        flooded.dry()
        seen.add((flooded.libvirts_rules(), flooded.our_rules()))
    assert (False, False) not in seen
    flooded.guests.define("late", interface_xml("52:54:00:00:00:77", BR0, reference=CLEAN))
    done = flooded.command("adopt", "--yes")
    flooded.dry()
    assert "filters of libvirt are twins" in done.stdout
    assert (flooded.libvirts_rules(), flooded.our_rules()) == (False, True)
    now = flooded.filters()
    assert {name for name, xml in now.items() if "<rule" in xml or "<filterref" in xml} == {"loose"}
    report = flooded.report()
    assert (report["state"], report["brought"], report["guests"]) == ("adopted", ["inner", "mine"], ["web"])
    kept = {path.stem: path.read_text() for path in flooded.host.path(f"{ADOPTED}/filters").iterdir()}
    assert kept == {name: xml for name, xml in before.items() if name in kept}
    assert "becomes a twin" not in flooded.command("adopt", "--dry-run").stdout
    assert flooded.command("adopt", "--yes").returncode == 0
    assert {path.stem: path.read_text() for path in flooded.host.path(f"{ADOPTED}/filters").iterdir()} == kept
    link = Link(flooded.guest, flooded.wire)
    assert not link.passes(SPOOFED)
    flooded.dry()


def test_unadopt_killed_at_every_step_and_done(flooded: Flooded) -> None:
    """The same way back; a guest that starts in the middle is under rules as well."""
    seen = set()
    for step in (0, 3, 12, 40):
        flooded.command("unadopt", "--yes", str(step), before=KILLED_AT, check=False)
        flooded.dry()
        seen.add((flooded.libvirts_rules(), flooded.our_rules()))
    assert (False, False) not in seen
    flooded.command("adopt", "--yes", before=STARTED_MEANWHILE)
    assert flooded.host.kernel.chains("vnet1"), "the late one"
    assert flooded.report()["state"] == "adopted"
    flooded.dry()
    done = flooded.command("unadopt", "--yes")
    assert done.stdout.endswith("brings our rules back\n")
    flooded.dry()
    assert (flooded.libvirts_rules(), flooded.our_rules()) == (True, False)
    assert not flooded.host.path(f"{ADMIN_FILTERS}/mine.xml").exists()
    assert flooded.report()["state"] == "given back"
    assert "<rule" in flooded.filters()["mine"]
    assert flooded.host.record_path("web").exists() is False
    flooded.host.libvirtd.virsh("destroy", "late")


def test_interfaces_of_type_direct(flooded: Flooded) -> None:
    """libvirt has dropped their filter; --direct gives them one by metadata, unadopt takes it away again."""
    flooded.guests.start(
        "apart", interface_xml("52:54:00:00:00:78", "<source dev='low0' mode='bridge'/>", kind="direct")
    )
    done = flooded.command("adopt", "--dry-run")
    assert (
        "apart: 52:54:00:00:00:78: of type direct, libvirt drops its filter: nothing filters it; --direct"
        in done.stdout
    )
    flooded.command("adopt", "--yes", "--direct", "no-mac-spoofing")
    assert "filter='no-mac-spoofing'" in flooded.host.libvirtd.virsh("dumpxml", "apart").stdout.replace('"', "'")
    assert flooded.host.kernel.chains("macvtap0") != set()
    assert flooded.report()["direct"] == [guest_uuid("apart")]
    flooded.command("adopt", "--yes", "--direct", "no-mac-spoofing")
    flooded.command("unadopt", "--yes")
    assert "nwfilter-hook.org" not in flooded.host.libvirtd.virsh("dumpxml", "apart").stdout
    assert flooded.host.kernel.chains("macvtap0") == set()
    assert (flooded.libvirts_rules(), flooded.our_rules()) == (True, False)
    flooded.dry()
    flooded.host.libvirtd.stop()
    for command in ("adopt", "unadopt"):
        done = flooded.command(command, "--yes", check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    flooded.host.write(CONFIGURATION, configuration() + "[watch]\nuri = none\n")
    assert "there is no libvirt to ask" in flooded.command("adopt", "--yes", check=False).stderr
    flooded.host.write(CONFIGURATION, configuration())
    flooded.host.libvirtd.start()
