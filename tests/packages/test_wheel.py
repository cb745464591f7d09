"""What pip installs, and what `nwfilter-hook setup` makes of it: nothing is missing, and nothing is left."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from nwfilter_hook import __version__
from tests.packages.conftest import run
from tests.packages.test_rpm import HOOK, SCRIPT
from tests.support.domains import recorded

PREFIX = "/usr/local/nwfilter"
COMPLETE = """
    python3 -m venv {prefix}
    {prefix}/bin/pip install --quiet --no-index --no-deps {wheel}
    command={prefix}/bin/nwfilter-hook
"""


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    """As a maintainer makes it, in a checkout."""
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    run(tree, sys.executable, "-c", build)
    (path,) = (tree / "dist").glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the sdist alone."""
    directory = tmp_path_factory.mktemp("wheel")
    run(directory, sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", ".", str(sdist))
    (path,) = directory.glob("*.whl")
    return path


def test_an_sdist_has_all_sources(sdist: Path, tree: Path) -> None:
    """What is committed, but for what is of the repository alone."""
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    committed = set(run(tree, "git", "ls-files").stdout.split())
    assert {name for name in committed - found if not name.startswith(".")} == set()


def test_a_wheel_has_all_files(wheel: Path, deb: Path) -> None:
    """Those that Debian's package has: hooks, filters, manual, completion, units."""
    with zipfile.ZipFile(wheel) as archive:
        found = {Path(name).name for name in archive.namelist()}
    listed = run(deb.parent, "dpkg-deb", "--contents", str(deb)).stdout.splitlines()
    names = {Path(line.split()[5]).name.removesuffix(".gz") for line in listed if line.startswith("-")}
    others = {
        *("nwfilter-hook", "nwfilter-hook.bash"),  # the command and its completion in bash: the same name in Debian
        *("files", "changelog", "changelog.Debian", "copyright"),
    }
    assert names - found - others == set()
    assert {"nwfilter-hook.bash", "entry_points.txt"} <= found


@pytest.mark.netns
def test_set_up(wheel: Path, tmp_path: Path) -> None:
    """A guest gets its rules from the hook that was put there; what was changed by hand stays, and nothing else."""
    body = f"""
    {COMPLETE.format(prefix=PREFIX, wheel=wheel)}
    $command setup --dry-run
    test ! -e {HOOK}
    $command setup
    test -f {HOOK} && test ! -L {HOOK}
    env -u PYTHONPATH {HOOK} web-01 start begin - <"$1"
    nft list table bridge nwfilter | grep -q 'vnet0.*jump from/vnet0'
    grep -q ExecStart={PREFIX}/bin/nwfilter-hook /etc/systemd/system/nwfilter-hook-watch.service
    echo AGAIN
    $command setup
    echo '# mine' >>/etc/nwfilter-hook/nwfilter-hook.conf
    echo '# mine' >>/etc/tmpfiles.d/nwfilter-hook.conf
    echo '# older' >>{HOOK}
    echo REMOVED
    $command setup --remove
    find /etc -path '*nwfilter[-_]hook*' -type f
    chmod o+w {PREFIX}
    ! $command setup
    """
    xml = tmp_path / "web.xml"
    xml.write_text(recorded(5))
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", SCRIPT + body, "sh", str(xml), sysconfig.get_path("purelib")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, again, removed = done.stdout.replace("AGAIN", "REMOVED").split("REMOVED\n")
    assert f"{HOOK}: would be put\n" in first
    assert f"{HOOK}: put\n" in first
    assert first.count("then: systemctl daemon-reload") == 1 + 1
    assert {line.rpartition(": ")[2] for line in again.splitlines()} == {"is there"}
    assert f"{HOOK}: removed\n" in removed
    assert "these taps stay under filter until they are gone: tap-eth0 vnet0 vnet1" in removed
    left = [line for line in removed.splitlines() if line.startswith("/etc") and ": " not in line]
    assert sorted(left) == ["/etc/nwfilter-hook/nwfilter-hook.conf", "/etc/tmpfiles.d/nwfilter-hook.conf"]
    assert "root would start what others may write" in done.stderr
    assert __version__ in wheel.name
