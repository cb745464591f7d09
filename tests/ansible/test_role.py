"""
The Ansible collection, by ansible-core, against a Debian 13 in a root directory with a guest under filter: it installs,
configures, brings a library, and puts it into force; check mode says what would be, and a second run changes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.debian_root import DebianRoot, debian_root
from tests.support.domains import domain, interface
from tests.support.netns import REPOSITORY

pytestmark = [pytest.mark.debian13, pytest.mark.timeout(900)]

STATE = "/var/lib/nwfilter-hook-test"
PREPARE = """
apt-get update -qq
apt-get install -y -qq --no-install-recommends nftables python3 python3-click python3-rich python3-apt
rm -rf /etc/nwfilter-hook /var/lib/nwfilter-hook-test /usr/bin/nwfilter-hook
dpkg --purge nwfilter-hook 2>/dev/null || :
"""
CONTROL = """Package: nwfilter-hook
Version: 0.1.0
Architecture: all
Maintainer: tests <tests@example.org>
Depends: nftables, python3, python3-click, python3-rich
Description: what make install makes, for a test
"""
RULE = "<rule action='drop' direction='in'><ip dscp='{}'/></rule>"
FILTER = f"<filter name='{{}}'><filterref filter='no-mac-spoofing'/>{RULE}</filter>"


class Site:
    """The root, a network namespace for it, and plays on it."""

    def __init__(self, root: DebianRoot, directory: Path) -> None:
        self.root, self.directory = root, directory
        self._network = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.library = directory / "library"
        self.library.mkdir()
        self.bring("mine", 7)
        collections = directory / "ansible_collections/nwfilter_hook"
        collections.mkdir(parents=True)
        shutil.copytree(REPOSITORY / "packaging/ansible", collections / "nwfilter_hook")

    def close(self) -> None:
        self._network.kill()
        self._network.wait()

    def bring(self, name: str, dscp: object) -> None:
        """A filter of the library."""
        (self.library / f"{name}.xml").write_text(FILTER.format(name, dscp))

    def entering(self, *command: str) -> list[str]:
        """The words that run a command in the root and its network."""
        return ["nsenter", f"--net=/proc/{self._network.pid}/ns/net", *self.root.entering("/", *command)]

    def run(self, *command: str, stdin: str = "", network: bool = False) -> str:
        """What a command prints there; `network`: in the machine's, where packages are."""
        words = self.root.entering("/", *command) if network else self.entering(*command)
        run = {"input": stdin, "capture_output": True, "text": True, "check": False}
        done: subprocess.CompletedProcess[str] = subprocess.run(words, env=self.root.environment(), **run)  # type: ignore[call-overload]
        assert done.returncode == 0, done
        return done.stdout

    def package(self) -> Path:
        """What `make install` makes, as a package."""
        tree, path = self.directory / "tree", self.directory / "nwfilter-hook.deb"
        subprocess.run(
            ["make", "--silent", "install", f"DESTDIR={tree}"], cwd=REPOSITORY, check=True, capture_output=True
        )
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(CONTROL)
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, path], check=True, capture_output=True)
        return path

    def play(self, *options: str, fails: bool = False, **variables: Any) -> tuple[dict[str, int], str]:
        """Run the role: how many tasks were ok, changed …; and all that was said."""
        given = {
            "nwfilter_hook_package": "",
            "nwfilter_hook_filters": str(self.library),
            "nwfilter_hook_configuration": {"paths": {"state_dir": STATE}, "nftables": {"counters": "all"}},
            **variables,
        }
        play = [{"hosts": "all", "gather_facts": False, "roles": ["nwfilter_hook.nwfilter_hook.host"], "vars": given}]
        path = self.directory / "play.json"
        path.write_text(json.dumps(play))
        environment = {
            **self.root.environment(),
            "ANSIBLE_COLLECTIONS_PATH": str(self.directory),
            "ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).parent / "connection_plugins"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "tmp"),
            "ENTERED_BY": json.dumps(self.entering()),
            "ENTERED_ROOT": str(self.root.path),
        }
        where = ["-i", "there,", "-c", "entered", "-e", "ansible_python_interpreter=/usr/bin/python3"]
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), *where, *options, path],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) is fails, said
        counts = next(line for line in done.stdout.splitlines() if line.startswith("there "))
        return {key: int(value) for key, value in (each.split("=") for each in counts.split() if "=" in each)}, said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("a root directory of another release needs root")
    root = debian_root("trixie")
    made = Site(root, tmp_path_factory.mktemp("ansible"))
    try:
        made.run("sh", "-ec", PREPARE, network=True)
        yield made
    finally:
        made.run("sh", "-c", "dpkg --purge nwfilter-hook; rm -rf /etc/nwfilter-hook /var/lib/nwfilter-hook-test; :")
        made.close()


def test_the_role(site: Site) -> None:
    """From nothing to a library in force; each step once more changes nothing, and check mode never."""
    package = str(site.package())
    counts, _ = site.play("--check", nwfilter_hook_package=package)
    assert not (site.root.path / "usr/bin/nwfilter-hook").exists()
    counts, said = site.play(nwfilter_hook_package=package)
    assert counts["changed"] >= 3, said
    assert "counters = all" in (site.root.path / "etc/nwfilter-hook/nwfilter-hook.conf").read_text()
    assert "mine" in site.run("nwfilter-hook", "list")
    # a guest under the library's filter
    xml = domain("web", [interface("vnet0", "mine")])
    site.run("/usr/share/nwfilter-hook/hooks/qemu", "web", "start", "begin", "-", stdin=xml)
    assert "ip dscp 0x07" in site.run("nft", "list", "ruleset")
    site.bring("mine", 9)
    before = site.run("nft", "list", "ruleset")
    counts, said = site.play("--check", "--diff")
    assert site.run("nft", "list", "ruleset") == before
    assert counts["changed"] == 1, said
    assert "-to/vnet0: " in said
    assert "ip dscp 9" in said
    assert "dscp='9'" in said, "the file's diff, too"
    assert "dscp='7'" in (site.root.path / "etc/nwfilter-hook/filters/mine.xml").read_text()
    counts, said = site.play()
    assert counts["changed"] == 2, said
    assert "ip dscp 0x09" in site.run("nft", "list", "ruleset")
    assert site.play()[0]["changed"] == 0
    # the place where it is tried is gone
    assert list((site.root.path / "var/tmp").glob("nwfilter-hook-*")) == []


def test_a_wrong_library_changes_nothing(site: Site) -> None:
    """A filter with a fault; one that the running guest can't have; a wrong configuration; purge of a used one."""
    before = site.run("nft", "list", "ruleset")
    site.bring("other", "64")
    _, said = site.play(fails=True)
    assert "dscp='64' on <ip> is not a number from 0 to 63" in said
    (site.library / "other.xml").unlink()
    site.bring("mine", "$NOBODY")
    _, said = site.play(fails=True)
    assert "guest web, tap vnet0" in said
    assert "$NOBODY" in said
    site.bring("mine", 9)
    _, said = site.play(fails=True, nwfilter_hook_configuration={"nftables": {"counter": "all"}})
    assert "unknown key 'counter'" in said
    (site.library / "mine.xml").rename(site.directory / "kept.xml")
    site.bring("new", 3)
    _, said = site.play(fails=True, nwfilter_hook_purge=True)
    assert "in use by web (vnet0)" in said or "no filter" in said
    (site.directory / "kept.xml").rename(site.library / "mine.xml")
    assert site.run("nft", "list", "ruleset") == before
    assert "mine" in site.run("nwfilter-hook", "list")
    (site.library / "new.xml").unlink()
    site.play(nwfilter_hook_purge=True)
    assert "new" not in site.run("nwfilter-hook", "list").split()
