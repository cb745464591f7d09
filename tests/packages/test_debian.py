"""
The Debian package: installed, upgraded, removed and purged in fresh roots of Debian 12 and 13.

A guest is under filter from the first to the last of these steps, and floods the bridge with frames that it must not
send: none arrives. The root shares the network namespace of a `Wire`, and hooks are started in it as libvirt starts
them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nwfilter_hook import __version__
from tests.packages.conftest import run
from tests.support.debian_root import DebianRoot, root_for_a_test
from tests.support.domains import domain, interface
from tests.support.frames import GUEST, OTHER, udp
from tests.support.netns import REPOSITORY, Wire

pytestmark = [pytest.mark.netns, pytest.mark.timeout(900)]

HOOK = "/etc/libvirt/hooks/qemu.d/50-nwfilter-hook"
WEB = domain("web", [interface("vnet0", "no-mac-spoofing")])
DB = domain("db", [interface("vnet1", "no-mac-spoofing", mac="52:54:00:00:00:09")])
ALLOWED, FORBIDDEN = udp(), udp(src=OTHER)
OLDER = "0.0.9"


class Machine:
    """
    A root directory with processes in it, and a wire for its guests.

    Args:
        root: a root that the machine may change. wire: its network.
    """

    def __init__(self, root: DebianRoot, wire: Wire) -> None:
        self.root, self.wire = root, wire
        # /run and /sys are this process's, for all that is run beside it
        held = root.entering("/", "sh", "-c", "umount -l /sys; mount -t sysfs sysfs /sys; echo; exec sleep infinity")
        with wire.inside():
            self._holder = subprocess.Popen(held, env=root.environment(), stdout=subprocess.PIPE)
        assert self._holder.stdout
        assert self._holder.stdout.readline() == b"\n"

    def close(self) -> None:
        """End what holds it."""
        self._holder.kill()
        self._holder.communicate()

    def path(self, inside: str) -> Path:
        """Where a file is seen from outside, /run included."""
        return Path(f"/proc/{self._holder.pid}/root{inside}")

    def run(self, *command: str, stdin: str = "", check: bool = True, ours: bool = True) -> str:
        """What a command there prints; `ours` is False for what needs the network outside, not ours."""
        done = subprocess.run(
            ["nsenter", "--target", str(self._holder.pid), "--mount", *(["--net"] if ours else []), *command],
            env=self.root.environment(),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        assert (done.returncode == 0) is check, done.stdout[-5000:]
        return done.stdout

    def hook(self, guest: str, operation: str, xml: str) -> None:
        """As libvirt starts it; it must succeed."""
        self.run(HOOK, guest, operation, "begin", "-", stdin=xml)

    def left(self) -> list[str]:
        """Files that have the package's name, outside of what dpkg and apt know and keep."""
        return self.run(
            *("find", "/etc", "/usr", "/lib/systemd", "/run", "/var/lib", "-name", "*nwfilter*"),
            *("-not", "-path", "/usr/lib/libvirt/*"),
        ).split()


@contextmanager
def flood(wire: Wire) -> Iterator[list[str]]:
    """The guest of vnet0 sends both frames again and again; what went wrong is in the list."""
    wrong: list[str] = []
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(0.001):
            for frame, passes in ((ALLOWED, True), (FORBIDDEN, False)):
                wire.guests["vnet0"].send(frame)
                if (frame in wire.guests["vnet1"].receive()) is not passes:
                    wrong.append("passed" if not passes else "lost")

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield wrong
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def older(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a version before: a module that is gone now, and another text of the hook."""
    directory = tmp_path_factory.mktemp("older")
    run(directory, "dpkg-deb", "--raw-extract", str(deb), "tree")
    tree = directory / "tree"
    package = tree / "usr/lib/python3/dist-packages/nwfilter_hook"
    for path, old, new in (
        (tree / "DEBIAN/control", f"Version: {__version__}\n", f"Version: {OLDER}\n"),
        (package / "__init__.py", f'"{__version__}"', f'"{OLDER}"'),
        (tree / "usr/share/nwfilter-hook/hooks/launch", "#!/bin/sh\n", "#!/bin/sh\n# older\n"),
    ):
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    (package / "gone.py").touch()
    run(directory, "dpkg-deb", "--build", "tree", "older.deb")
    return directory / "older.deb"


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, deb: Path, older: Path) -> Iterator[Machine]:
    """A fresh root with both packages in /root, and all that they depend on fetched, but not installed."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("root directories of other releases need root and debootstrap")
    with root_for_a_test(request.param) as root, Wire() as wire:
        (root.path / "etc/dpkg/dpkg.cfg.d/test").write_text("force-unsafe-io\n")
        machine = Machine(root, wire)
        try:
            shutil.copy(deb, machine.path("/root/new.deb"))
            shutil.copy(older, machine.path("/root/older.deb"))
            machine.run("apt-get", "update", "-qq", ours=False)
            fetch = ("apt-get", "install", "-y", "-q", "--no-install-recommends", "--download-only", "/root/older.deb")
            machine.run(*fetch, ours=False)
            yield machine
        finally:
            machine.close()


def install(machine: Machine, package: str) -> str:
    """What apt says while it installs a package of /root, without the network."""
    return machine.run("apt-get", "install", "-y", "-q", "--no-install-recommends", f"/root/{package}.deb")


def test_installed(machine: Machine) -> None:
    """The hook is a file, and libvirt's guest gets its rules from it; the administrator is told once what to do."""
    said = install(machine, "older")
    assert said.count("restart libvirtd") == 1
    hook = machine.path(HOOK)
    assert hook.is_file()
    assert not hook.is_symlink()
    machine.hook("web", "start", WEB)
    assert machine.wire.passes(ALLOWED)
    assert not machine.wire.passes(FORBIDDEN)
    assert "vnet0  no-mac-spoofing  web" in machine.run("nwfilter-hook", "binding-list")
    compiled = machine.path("/usr/lib/python3/dist-packages/nwfilter_hook/__pycache__")
    assert any(compiled.iterdir())
    assert f"{OLDER}" in machine.run("nwfilter-hook", "--version")


def test_upgraded(machine: Machine) -> None:
    """A guest stays under filter though its record is an older version's; a changed configuration stays as it is."""
    configuration = machine.path("/etc/nwfilter-hook/nwfilter-hook.conf")
    configuration.write_text("[nftables]\ncounters = all\n")
    (record,) = machine.path("/run/nwfilter-hook/domains").glob("*.json")
    old = json.loads((REPOSITORY / "tests/data/records/schema-1.json").read_text())
    (first,) = old["interfaces"]
    first.update({"filter": "no-mac-spoofing", "bridge": "br0", "mac": GUEST})
    first.update({"chains": ["from/vnet0"], "fingerprints": [[]]})
    record.write_text(json.dumps({**old, "guest": "web", "uuid": record.stem}))
    with flood(machine.wire) as wrong:
        said = install(machine, "new")
        assert "restart libvirtd" not in said
        assert not machine.path("/usr/lib/python3/dist-packages/nwfilter_hook/gone.py").exists()
        assert "# older" not in machine.path(HOOK).read_text()
        assert "vnet0  no-mac-spoofing  web" in machine.run("nwfilter-hook", "binding-list")
        machine.hook("web", "reconnect", WEB)
        machine.run("nwfilter-hook", "verify")
    assert not wrong
    assert configuration.read_text() == "[nftables]\ncounters = all\n"
    assert __version__ in machine.run("nwfilter-hook", "--version")


def test_upgraded_while_hooks_run(machine: Machine) -> None:
    """Each guest that starts meanwhile is under filter, or refused; libvirt sees no other file among its hooks."""
    ended = threading.Event()
    seen: list[tuple[int, bool]] = []
    names: set[str] = set()

    def start_guests() -> None:
        while not ended.is_set():
            names.update(os.listdir(machine.path(os.path.dirname(HOOK))))
            command = ["nsenter", "--target", str(machine._holder.pid), "--mount", "--net", HOOK, "db"]
            status = subprocess.run(
                [*command, "start", "begin", "-"], input=DB, text=True, capture_output=True, check=False
            ).returncode
            sent = udp(src="52:54:00:00:00:0a")
            seen.append((status, status != 0 or not machine.wire.passes(sent, "vnet1", "vnet0")))
            subprocess.run([*command, "stopped", "end", "-"], input=DB, text=True, capture_output=True, check=False)

    thread = threading.Thread(target=start_guests)
    thread.start()
    try:
        for package in ("older", "new"):
            machine.run("dpkg", "--install", f"/root/{package}.deb")
    finally:
        ended.set()
        thread.join()
    assert len(seen) > 3
    assert all(fine for _, fine in seen)
    assert seen[-1][0] == 0
    assert names == {os.path.basename(HOOK)}
    machine.hook("db", "stopped", DB)


def test_removed(machine: Machine) -> None:
    """Rules stay in force, and dpkg says for which taps; libvirt finds no hook; a new installation says what to do."""
    with flood(machine.wire) as wrong:
        said = machine.run("dpkg", "--remove", "nwfilter-hook")
        assert "stay under filter" in said
        assert "vnet0  no-mac-spoofing  web" in said
        assert not machine.path(HOOK).exists()
        assert install(machine, "new").count("restart libvirtd") == 1
        machine.hook("web", "reconnect", WEB)
        machine.run("dpkg", "--remove", "nwfilter-hook")
    assert not wrong
    assert not machine.path("/usr/lib/python3/dist-packages/nwfilter_hook").exists()


def test_purged(machine: Machine) -> None:
    """Refused while a guest's tap is under filter, by name; then nothing is left, in the kernel neither."""
    with flood(machine.wire) as wrong:
        said = machine.run("dpkg", "--purge", "nwfilter-hook", check=False)
    assert not wrong
    assert "these taps are under filter: vnet0" in said
    machine.wire.unplug("vnet0")
    machine.run("dpkg", "--purge", "nwfilter-hook")
    assert machine.run("nft", "list", "tables") == ""
    assert machine.left() == []
    assert "nwfilter" not in machine.run("dpkg", "--get-selections")
