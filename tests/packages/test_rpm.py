"""The RPM: the same files as in the Debian package, where Fedora has them; installed, upgraded and removed."""

from __future__ import annotations

import gzip
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from nwfilter_hook import __version__
from tests.packages.conftest import run
from tests.support.domains import recorded
from tests.support.netns import REPOSITORY

# rpm's own directories and scripts, on this Debian: what it writes is above /usr, /etc and /run, and gone afterwards
SCRIPT = """
set -eu
mount --make-rprivate /
mount -t tmpfs none /mnt
for directory in usr etc; do
    mkdir /mnt/$directory /mnt/$directory.work
    mount -t overlay overlay -o lowerdir=/$directory,upperdir=/mnt/$directory,workdir=/mnt/$directory.work /$directory
done
mount -t tmpfs none /run
mkdir -p /run/nothing
export PYTHONPATH=$2
rpm() { command rpm --dbpath /run/rpm --nodeps --nosignature "$@"; }
cd /
"""
HOOK = "/etc/libvirt/hooks/qemu.d/50-nwfilter-hook"
MOVED = (
    ("/lib/systemd/", "/usr/lib/systemd/"),
    ("/usr/lib/python3/dist-packages/", "/usr/share/nwfilter-hook/"),
    ("/usr/share/zsh/vendor-completions/", "/usr/share/zsh/site-functions/"),
)
"""Where Debian and Fedora have the same files."""
OWN = "/usr/bin/nwfilter-hook"
"""Where it looks for the package isn't the same."""


@pytest.fixture(scope="module")
def rpm(tree: Path) -> Path:
    """As `make rpm` builds it, with nothing that rpmlint has to say."""
    said = run(tree, "make", "rpm").stdout
    assert "0 errors, 0 warnings" in said
    (path,) = (tree / "dist").glob("*.rpm")
    assert path.name == f"nwfilter-hook-{__version__}-1.noarch.rpm"
    return path


def unpacked(directory: Path, *command: str) -> dict[str, bytes]:
    """Files by their names on Fedora, compressed or not, without what each system wants to have of its own."""
    directory.mkdir()
    run(directory, "sh", "-c", " ".join(command))
    found = {}
    for path in directory.rglob("*"):
        name = f"/{path.relative_to(directory)}"
        if path.is_file() and not re.match("/usr/share/(doc|licenses|lintian)/", name):
            for debian, fedora in MOVED:
                if name.startswith(debian):
                    name = fedora + name[len(debian) :]
            data = path.read_bytes()
            found[name.removesuffix(".gz")] = gzip.decompress(data) if name.endswith(".gz") else data
    return found


def test_the_same_files(rpm: Path, deb: Path, tmp_path: Path) -> None:
    """In both packages, byte for byte."""
    ours = unpacked(tmp_path / "rpm", f"rpm2cpio {rpm} | cpio --quiet -id")
    theirs = unpacked(tmp_path / "deb", f"dpkg-deb --extract {deb} .")
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == [OWN]


@pytest.mark.netns
def test_installed(rpm: Path) -> None:
    """A guest gets its rules from a hook that is a file; upgraded, it is still there; removed, nothing of it is."""
    body = f"""
    rpm --install {rpm}
    test -f {HOOK} && test ! -L {HOOK}
    test -e /usr/share/nwfilter-hook/nwfilter_hook/__pycache__
    {HOOK} web-01 start begin - <"$1"
    nft list table bridge nwfilter | grep -q 'vnet0.*jump from/vnet0'
    nwfilter-hook --version
    rpm --upgrade --replacepkgs {rpm}
    ls -A /etc/libvirt/hooks/qemu.d /etc/libvirt/hooks | grep nwfilter
    rpm --erase nwfilter-hook
    test ! -e {HOOK}
    find /etc /usr -path '*nwfilter[-_]hook*' -not -path '/usr/lib/python3*'
    nft list table bridge nwfilter | grep -q 'vnet0.*jump from/vnet0'
    """
    xml = Path(rpm.parent, "web.xml")
    xml.write_text(recorded(5))
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", SCRIPT + body, "sh", str(xml), sysconfig.get_path("purelib")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said.count("nwfilter-hook: libvirt looks for hooks when it starts, so restart virtqemud (or") == 1
    assert "nwfilter-hook: guests keep the rules that they have; 'nwfilter-hook reload' compiles them anew" in said
    assert said.count("50-nwfilter-hook") == 1
    assert any(__version__ in line for line in said)
    assert any("stay under filter until they are gone" in line for line in said)
    assert any(line.startswith("vnet0 ") for line in said)
    assert [line for line in said if line.startswith("/")] == []


def test_the_policy_compiles(tmp_path: Path) -> None:
    """The module for SELinux, over a policy that has what it names."""
    base = tmp_path / "base.cil"
    base.write_text(BASE)
    run(
        tmp_path,
        "secilc",
        "-o",
        "policy",
        "-f",
        "contexts",
        str(base),
        str(REPOSITORY / "packaging/selinux/nwfilter-hook.cil"),
    )


BASE = """
(class file (getattr open read map execute ioctl))
(class process (transition sigchld))
(class fd (use))
(class fifo_file (getattr read write append ioctl lock))
(classorder (file process fd fifo_file))
(sid kernel) (sidorder (kernel)) (sidcontext kernel (u r virtqemud_t ((s0) (s0))))
(user u) (role r) (userrole u r) (userlevel u (s0)) (userrange u ((s0) (s0)))
(sensitivity s0) (sensitivityorder (s0)) (category c0) (categoryorder (c0)) (sensitivitycategory s0 (c0))
(type virtqemud_t) (type virt_hook_t) (type virt_hook_unconfined_t)
(roletype r virtqemud_t) (roletype r virt_hook_unconfined_t)
(boolean virt_hooks_unconfined false)
(allow virtqemud_t virtqemud_t (process (sigchld)))
"""
