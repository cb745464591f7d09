"""A host on which all is well, with a guest under filter; its faults are the tests'."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from nwfilter_hook.storage.watching import OneService, Watching, write_watching
from tests.support.domains import domain, interface, uuid_of
from tests.support.frames import GUEST
from tests.support.netns import REPOSITORY, Wire, command_line

IP = [("IP", "10.0.0.1")]
WEB = interface("vnet0", "clean-traffic", IP, mac=GUEST)
ABLE = 'case "$*" in *--check*) exit 0;; esac'
"""For a `fake_nft`: a kernel that can do everything."""
LACKS_CT = f"""in=$(cat)
case "$*$in" in *--check*"ct state"*) exit 1;; esac
{ABLE}
printf "%s" "$in" >$HERE/in
exec <$HERE/in"""
"""Likewise: one without connections in bridges."""


class Closing(Protocol):
    """Something that can be closed."""

    def close(self) -> None:
        """It is."""


class Ward:
    """
    A host with the guest "web" on vnet0; libvirt's directories are its own.

    Attributes:
        libvirt: /etc/libvirt. running: /run/libvirt.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.directory = wire.directory
        self.state_dir = wire.state_dir
        self.libvirt = self.directory / "etc-libvirt"
        self.running = self.directory / "run-libvirt"
        self.filters = self.directory / "filters"
        for directory in (self.filters, self.libvirt / "hooks/qemu.d", self.libvirt / "qemu", self.running / "qemu"):
            directory.mkdir(parents=True)
        self.hook = self.libvirt / "hooks/qemu.d/50-nwfilter-hook"
        launcher = (REPOSITORY / "hooks/launch").read_text()
        self.hook.write_text(
            launcher.replace("program=/usr/share/nwfilter-hook/hooks/qemu", f"program={REPOSITORY}/hooks/qemu")
        )
        self.hook.chmod(0o755)
        self.fake_nft(ABLE)
        self.runs("web", WEB)
        self.wire.start("web", domain("web", [WEB]))
        self._kept = ExitStack()
        self._service = OneService(str(self.state_dir))
        self.serve()

    # how it is

    def configure(self, text: str = "") -> None:
        """The configuration; nft is the fake one."""
        nft = f"[nftables]\nnft = {self.directory}/nft\n"
        self.wire.configure(nft + text, filter_dirs=[self.filters])
        self.wire.hook_environment()

    def fake_nft(self, body: str) -> None:
        """nft is this shell script, and then the real one; $HERE is the host's directory."""
        path = self.directory / "nft"
        path.write_text(f'#!/bin/sh\nHERE={self.directory}\n{body}\nexec {shutil.which("nft")} "$@"\n')
        path.chmod(0o755)
        self.configure()

    def runs(self, name: str, *interfaces: str) -> None:
        """libvirt says that this guest runs."""
        status = f"<domstatus state='running' pid='1'>\n{domain(name, interfaces)}</domstatus>"
        (self.running / f"qemu/{name}.xml").write_text(status)

    def defines(self, name: str, *interfaces: str) -> None:
        """libvirt would start this guest."""
        (self.libvirt / f"qemu/{name}.xml").write_text(f"<!-- made by virsh -->\n{domain(name, interfaces)}")

    def serve(self, **otherwise: Any) -> None:
        """The service tells this."""
        told = {"pid": 1, "version": "", "since": "", "running": True, "libvirt": "connected", "libvirt_since": ""}
        more = {"resynced": None, "drifted": None, "refused": (), **otherwise}
        write_watching(str(self.state_dir), Watching(**{**told, **more}))

    def end_service(self) -> None:
        """It is killed."""
        self._service.release()

    def guard_on(self, *options: str) -> None:
        """What nobody has decided about passes nothing; vnet1 is left alone."""
        self.configure("[guard]\nmode = taps\nallow = vnet1\n[watch]\nuri = none")
        done = self.command("guard", "on", *options)
        assert done.returncode == 0, done

    def keep(self, closed_at_the_end: Closing) -> None:
        """Until the test ends."""
        self._kept.callback(closed_at_the_end.close)

    def end(self) -> None:
        """What was kept is closed."""
        self._kept.close()

    def record(self, name: str = "web") -> Path:
        """The file of the guest's record."""
        return self.state_dir / f"domains/{uuid_of(name)}.json"

    def nft(self, script: str) -> None:
        """Somebody else changes the rules of the kernel."""
        self.wire.apply(script)

    # the doctor

    def command(self, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command line; `before` is shell in front of it. No process of this machine is to be seen."""
        mounts = f"mount --bind {self.libvirt} /etc/libvirt; mount -t tmpfs none /run; "
        mounts += f"mkdir /run/libvirt; mount --bind {self.running} /run/libvirt; "
        script = f'{mounts}{before}\nexec "$@"'
        return self.wire.run(
            *("unshare", "--pid", "--fork", "--mount-proc", "sh", "-ec", script, "sh"),
            *command_line(),
            *arguments,
            check=False,
            environment=self.wire.hook_environment(),
            own_sysfs=True,
        )

    def findings(self, *checks: str, before: str = "") -> list[dict[str, str]]:
        """What `doctor --json` finds; the exit status says whether something is wrong."""
        done = self.command("doctor", "--json", *checks, before=before)
        assert done.stderr == "", done.stderr
        found: list[dict[str, str]] = json.loads(done.stdout)["findings"]
        assert done.returncode == int(any(each["level"] == "wrong" for each in found)), done
        assert all(each["finding"] and each["why"] and each["check"] in (checks or [each["check"]]) for each in found)
        return found

    def finds(
        self, check: str, level: str, words: Sequence[str] | str, command: str | None = None, *, before: str = ""
    ) -> dict[str, str]:
        """One finding of the check, and no other, has these words and this command."""
        (found,) = self.findings(check, before=before)
        assert (found["check"], found["level"]) == (check, level), found
        for word in [words] if isinstance(words, str) else words:
            assert word in found["finding"], (word, found)
        assert command is None or found["command"] == command, found
        return found


@pytest.fixture
def ward(able: None) -> Iterator[Ward]:
    """A host on which all is well."""
    with Wire() as wire:
        made = Ward(wire)
        yield made
        made.end()
