"""A host with guests whose XML is a file, and the command line run on it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.domains import domain, interface, uuid_of
from tests.support.frames import GUEST, OTHER
from tests.support.netns import REPOSITORY, Wire

MAIN = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from nwfilter_hook.cli.main import main; main()"
FAKE_LIBVIRT = REPOSITORY / "tests/support/fake_libvirt"
PYTHON = REPOSITORY / ".venv/bin/python"
IP = [("IP", "10.0.0.1")]
WEB = interface("vnet0", "clean-traffic", IP, mac=GUEST)
DB = interface("vnet1", "clean-traffic", [("IP", "10.0.0.2")], mac=OTHER)


class Hypervisor:
    """
    A wire's taps belong to guests that libvirt knows; see tests/support/fake_libvirt.

    Attributes:
        environment: of commands that are run on it.
        said: what the last `resync` said of single taps.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.directory = wire.directory / "libvirt"
        self.directory.mkdir()
        self.said = ""
        path = wire.hook_environment()
        self.environment = {**path, "FAKE_LIBVIRT": str(self.directory), "PYTHONPATH": str(FAKE_LIBVIRT)}

    @property
    def state_dir(self) -> Path:
        """Where records are."""
        return self.wire.state_dir

    def runs(self, name: str, interfaces: Sequence[str], *, metadata: str = "") -> None:
        """From now on libvirt has this XML of the guest."""
        path = self.directory / f"{uuid_of(name)}.xml"
        path.with_suffix(".new").write_text(domain(name, interfaces, metadata=metadata))
        path.with_suffix(".new").rename(path)

    def stops(self, name: str) -> None:
        """libvirt says that it doesn't run."""
        (self.directory / f"{uuid_of(name)}.xml").unlink()

    def meanwhile(self, script: str) -> None:
        """What happens while libvirt is asked next."""
        (self.directory / "meanwhile").write_text(script)

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `nwfilter-hook`; whatever its exit status."""
        return self.wire.run(
            PYTHON, "-c", MAIN, *arguments, check=False, environment={**self.environment, **environment}, own_sysfs=True
        )

    def resync(self) -> str:
        """What a `resync` prints in which nothing fails; it says each change on stderr, in one line."""
        done = self.command("resync")
        assert done.returncode == 0, done
        self.said = done.stderr
        return done.stdout

    def filtered(self) -> set[str]:
        """The taps that the kernel has rules for."""
        return {rule.tap for rule in self.wire.rules()} - {""}


@pytest.fixture
def hypervisor(able: None) -> Iterator[Hypervisor]:
    """One with vnet0 and vnet1 in a bridge."""
    with Wire() as wire:
        yield Hypervisor(wire)
