"""A host with guests whose XML is a file, and the command line run on it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.domains import domain, interface, uuid_of
from tests.support.frames import GUEST, OTHER
from tests.support.libvirtd import wait_for
from tests.support.netns import REPOSITORY, Wire, command_line

FAKE_LIBVIRT = REPOSITORY / "tests/support/fake_libvirt"
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
        self.first_s = 0.0
        path = wire.hook_environment()
        self.environment = {
            **path,
            "FAKE_LIBVIRT": str(self.directory),
            "FAKE_LIBVIRT_LOCK": str(wire.state_dir / "lock"),
            "PYTHONPATH": str(FAKE_LIBVIRT),
        }

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
        return self.wire.command(*arguments, environment={**self.environment, **environment})

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


class Service:
    """
    `nwfilter-hook watch` on a hypervisor, until the `with` block ends.

    Args:
        uri: of libvirt. status_dir: the configuration's, if not its default. tree: whose service it is.
        environment: beside the hypervisor's.
    """

    def __init__(
        self,
        hypervisor: Hypervisor,
        uri: str = "none",
        *,
        status_dir: str = "",
        tree: Path = REPOSITORY,
        **environment: str,
    ) -> None:
        self._hypervisor = hypervisor
        path = Path(hypervisor.environment["NWFILTER_HOOK_CONF"])
        directory = f"status_dir = {status_dir}\n" if status_dir else ""
        path.write_text(f"{path.read_text().partition('[watch]')[0].rstrip()}\n[watch]\nuri = {uri}\n{directory}")
        self._tree = tree
        # another of its threads may hold our lock while one asks libvirt
        free = {"FAKE_LIBVIRT_LOCK": ""}
        self._environment = {**hypervisor.environment, **free, "JOURNAL_STREAM": "8:1", **environment}
        self._log = hypervisor.wire.directory / "watch.log"

    def __enter__(self) -> Service:
        self._log.write_text("")
        self.process = self._hypervisor.wire.start_process(
            *command_line(self._tree), "watch", environment=self._environment, output=self._log
        )
        wait_for("the service", lambda: "watching: " in self.said() or self.process.poll() is not None, 20)
        assert self.process.poll() is None, self.said()
        return self

    def said(self) -> str:
        """Everything on its standard error."""
        return self._log.read_text()

    def wait_until_said(self, words: str) -> str:
        """The first line with these words."""
        line = wait_for(words, lambda: next((each for each in self.said().splitlines() if words in each), ""), 20)
        return line.removeprefix("nwfilter-hook: ")

    def told(self) -> dict[str, Any]:
        """What it tells others."""
        found: dict[str, Any] = json.loads((self._hypervisor.state_dir / "watch.json").read_text())
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status after that signal."""
        self.process.send_signal(number)
        return self.process.wait(20)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
