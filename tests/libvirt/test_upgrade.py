"""While our program is gone, broken or half of an upgrade, libvirtd may restart: no guest dies, none starts open."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.libvirt.conftest import HOOK, REPOSITORY, Guests, Host, Link
from tests.support.frames import GUEST, GUEST_IP, OTHER, OTHER_IP, udp
from tests.support.guest import filterref_xml, interface_xml
from tests.support.libvirtd import Wire

pytestmark = pytest.mark.libvirt

REFERENCE = filterref_xml("clean-traffic", ("IP", GUEST_IP))
INSTALLED = "/run/installed"


class Program:
    """A copy of the program on the private host, started by the hook."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._launcher = host.path(HOOK).read_text()
        self.root = host.path(INSTALLED)
        self.package = self.root / "nwfilter_hook"
        self.install()

    def install(self) -> None:
        """All of it, and the hook that starts it."""
        shutil.rmtree(self.root, ignore_errors=True)
        for part in ("nwfilter_hook", "hooks"):
            shutil.copytree(REPOSITORY / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
        self.start_with("/usr/bin/python3")

    def start_with(self, python: str) -> None:
        """The interpreter that the hook takes."""
        text = re.sub("(?m)^program=.*", f"program={INSTALLED}/hooks/qemu", self._launcher)
        self._host.write(HOOK, re.sub("(?m)^python=.*", f"python={python}", text), mode=0o755)

    def remove(self) -> None:
        """The checkout is started again."""
        shutil.rmtree(self.root)
        self._host.write(HOOK, self._launcher, mode=0o755)


@pytest.fixture
def program(host: Host) -> Iterator[Program]:
    """The program, whole."""
    program = Program(host)
    yield program
    program.remove()


def _half(package: Path) -> None:
    for path in sorted(package.rglob("*.py"))[::2]:
        path.unlink()


BREAKAGES: dict[str, Callable[[Program], object]] = {
    "no package": lambda program: shutil.rmtree(program.package),
    "half of it": lambda program: _half(program.package),
    "an error in a module": lambda program: (program.package / "hook.py").write_text("def main(:\n"),
    "no interpreter": lambda program: program.start_with("/usr/bin/python3.99"),
    "nothing in the program": lambda program: (program.root / "hooks" / "qemu").write_text(""),
}


def test_libvirtd_restarts_in_the_middle_of_an_upgrade(
    host: Host, guests: Guests, wire: Wire, program: Program
) -> None:
    """
    Guests that run go on, filtered as before; one with a filter doesn't start and virsh says why; one without does.
    When the program is whole again, the next restart repairs what was lost meanwhile.
    """
    guest = guests.boot("survivor", interface_xml(GUEST, "<source bridge='br0'/>", reference=REFERENCE))
    plain = interface_xml(OTHER, "<source bridge='br0'/>")
    guests.define("refused", interface_xml(OTHER, "<source bridge='br0'/>", reference=REFERENCE))
    guests.start("plain", plain)
    link, process, rules = Link(guest, wire), guest.process(), host.kernel.rules(guest.tap)
    assert process
    assert rules

    for breakage in BREAKAGES.values():
        breakage(program)
        host.restart_libvirtd()
        assert host.libvirtd.virsh("list", "--name").stdout.split() == ["survivor", "plain"]
        assert guest.process() == process
        assert host.kernel.rules(guest.tap) == rules
        started = host.libvirtd.virsh("start", "refused", check=False)
        assert started.returncode != 0
        said = re.search(r"exit status 1: nwfilter-hook: refused: prepare: (.*)\n", started.stderr)
        assert said, started.stderr
        assert f"{INSTALLED}/hooks/qemu can't run (" in said[1]
        program.install()
    assert link.passes(udp())
    assert not link.passes(udp(src_ip=OTHER_IP))

    shutil.rmtree(program.package)
    host.libvirtd.virsh("destroy", "plain")
    host.libvirtd.virsh("start", "plain")  # it names no filter
    host.kernel.flush()
    host.restart_libvirtd()
    assert link.passes(udp(src_ip=OTHER_IP))  # nobody was there to repair it
    program.install()
    host.restart_libvirtd()
    assert guest.process() == process
    assert host.kernel.rules(guest.tap) == rules
    assert not link.passes(udp(src_ip=OTHER_IP))
    host.libvirtd.virsh("start", "refused")
