"""digest and check-migration as processes: two hosts that are the same, and what becomes different between them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.domains import domain
from tests.watch.conftest import DB, WEB, Hypervisor

FAKE_SSH = """#!/bin/sh
printf '%s\\n' "$@" >"$(dirname "$0")/arguments"
cat "$(dirname "$0")/there.json" || { echo "ssh: no route" >&2; exit 255; }
"""


def test_two_hosts(hypervisor: Hypervisor, tmp_path: Path) -> None:
    """The digest is of filters and parameters alone; what differs elsewhere is said, by file and by ssh."""
    wire = hypervisor.wire
    local = tmp_path / "filters"
    local.mkdir()
    wire.configure(filter_dirs=[local])
    wire.start("web", domain("web", [WEB]))
    wire.start("db", domain("db", [DB]))
    lines = hypervisor.command("digest", "--all").stdout.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["db", "web"]
    web, db = lines[1].split()[0], lines[0].split()[0]
    assert len(web) == 64
    assert web != db, "other addresses"
    assert hypervisor.command("digest", "web").stdout == f"{web}  web\n"
    assert json.loads(hypervisor.command("digest", "web", "--json").stdout)["digest"] == web
    there = tmp_path / "there.json"
    there.write_text(hypervisor.command("digest", "--all", "--json").stdout)
    done = hypervisor.command("check-migration", "web", str(there))
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.endswith(": the same filters, abilities, sets and configuration\n")
    ssh = tmp_path / "ssh"
    ssh.write_text(FAKE_SSH)
    ssh.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{hypervisor.environment['PATH']}"}
    assert hypervisor.command("check-migration", "web", "qemu+ssh://root@two/system", **path).returncode == 0
    arguments = (tmp_path / "arguments").read_text().split("\n")
    assert arguments[-6:-1] == ["-l", "root", "--", "two", "nwfilter-hook digest --all --json"]
    # a filter in the middle of the tree, here only
    done = hypervisor.command("dumpxml", "no-ip-spoofing")
    (tmp_path / "f.xml").write_text(
        done.stdout.replace("action='drop'", "action='reject'").replace("0.0.0.0", "0.0.0.1")
    )
    hypervisor.command("define", str(tmp_path / "f.xml"))
    assert hypervisor.command("digest", "web").stdout != f"{web}  web\n"
    done = hypervisor.command("check-migration", "web", "ssh://two", **path)
    assert (done.returncode, "filter 'no-ip-spoofing' says something else there" in done.stdout) == (1, True), done
    there.unlink()
    done = hypervisor.command("check-migration", "web", "ssh://two", **path)
    assert (done.returncode, done.stderr) == (1, "nwfilter-hook: ssh://two: ssh: no route\n")


def test_bad_input(hypervisor: Hypervisor, tmp_path: Path) -> None:
    """No guest, both, a guest that isn't, a file that isn't."""
    for wrong in (["digest"], ["digest", "a", "--all"], ["check-migration", "a"]):
        assert hypervisor.command(*wrong).returncode == 2
    path = hypervisor.environment["NWFILTER_HOOK_CONF"]
    with open(path, "a", encoding="utf-8") as file:
        file.write("[watch]\nuri = none\n")
    done = hypervisor.command("digest", "nobody")
    assert (done.returncode, "no guest 'nobody' runs under filter" in done.stderr) == (1, True)
    hypervisor.wire.start("web", domain("web", [WEB]))
    done = hypervisor.command("check-migration", "web", str(tmp_path / "none.json"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    done = hypervisor.command("check-migration", "web", "qemu+tls://two/system")
    assert (done.returncode, "is not ssh://" in done.stderr) == (1, True)
