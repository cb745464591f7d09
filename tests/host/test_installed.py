"""Installed with `make install`, and not only in a checkout, the hook and the command line work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.domains import recorded
from tests.support.netns import REPOSITORY

pytestmark = pytest.mark.hook

# In a mount namespace of its own, with everything that is written to /usr, /etc and /run on a tmpfs above them.
SCRIPT = """
set -eu
mount --make-rprivate /
mount -t tmpfs none /mnt
for directory in usr etc; do
    mkdir /mnt/$directory /mnt/$directory.work
    mount -t overlay overlay -o lowerdir=/$directory,upperdir=/mnt/$directory,workdir=/mnt/$directory.work /$directory
done
mount -t tmpfs none /run
make --silent -C "$1" "$2" 2>/run/make-said || { cat /run/make-said >&2; exit 1; }
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /
hook=/etc/libvirt/hooks/qemu.d/50-nwfilter-hook
"""


def in_private_system(body: str, stdin: str = "", target: str = "install") -> subprocess.CompletedProcess[str]:
    """Run `body` after an installation (`target` of the Makefile) that is gone afterwards."""
    return subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", SCRIPT + body, "sh", str(REPOSITORY), target],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LC_ALL": "C"},  # rst2man is there
    )


def test_the_installed_hook_filters_a_guest() -> None:
    """From libvirt's hooks directory, a file of its own finds the package, its filters and its configuration."""
    done = in_private_system(
        "test -f $hook && test ! -L $hook && $hook web-01 start begin - && nft list table bridge nwfilter",
        stdin=recorded(5),
    )
    assert done.returncode == 0, done.stderr
    assert '"vnet0" : jump from/vnet0' in done.stdout
    assert not done.stderr


def test_an_upgrade_replaces_the_package() -> None:
    """Over an older one: a link in the hooks directory becomes a file, old modules go, half a package is seen."""
    done = in_private_system(
        """
        package=/usr/lib/python3/dist-packages/nwfilter_hook
        touch $package/gone.py
        ln -sf /usr/share/nwfilter-hook/hooks/qemu $hook
        make --silent -C "$1" install
        test ! -L $hook
        echo $package* $package/go* /etc/libvirt/hooks/.*-* /etc/libvirt/hooks/qemu.d/*
        echo >>$package/operations/dispatch.py
        ! $hook web-01 start begin -
        """,
        stdin=recorded(5),
    )
    assert done.returncode == 0, done.stderr
    package = "/usr/lib/python3/dist-packages/nwfilter_hook"
    hooks = "/etc/libvirt/hooks"
    assert done.stdout == f"{package} {package}/go* {hooks}/.*-* {hooks}/qemu.d/50-nwfilter-hook\n"
    assert "operations/dispatch.py is not of this installation" in done.stderr


def test_a_checkout_is_started_too() -> None:
    """`make hook` puts a file into libvirt's directory that starts the checkout."""
    done = in_private_system('grep "^program=" $hook', target="hook")
    assert done.stdout == f"program={REPOSITORY}/hooks/qemu\n", done.stderr


def test_the_installed_filters_and_configuration_are_fine() -> None:
    """The command's modules, all stock filters and the sample configuration are where they are looked for."""
    done = in_private_system(
        "/usr/bin/python3 -I -c 'from nwfilter_hook.config import read_config; print(*read_config().filter_dirs)'\n"
        "ls /usr/share/nwfilter-hook/filters/*.xml | wc -l; test -x /usr/bin/nwfilter-hook"
    )
    assert done.returncode == 0, done.stderr
    directories, count = done.stdout.strip().splitlines()
    assert directories == "/etc/nwfilter-hook/filters /usr/share/nwfilter-hook/filters"
    assert int(count) == len(list(Path(REPOSITORY, "filters").glob("*.xml")))


def test_the_manual_is_installed_where_docutils_is() -> None:
    """Each page, for man; without docutils all else is, and `make` says what is left out and what to do."""
    done = in_private_system(
        """
        man=/usr/share/man
        test ! -s /run/make-said
        for page in $man/man*/nwfilter-*.[578]; do head -1 $page; rm $page; done
        make --silent -C "$1" install RST2MAN=rst2man-that-isnt-there 2>&1
        ! ls $man/man*/nwfilter-* 2>/dev/null
        test -x /usr/bin/nwfilter-hook
        """
    )
    assert done.returncode == 0, done.stderr
    *pages, said = done.stdout.splitlines()
    assert len(pages) == len(list(Path(REPOSITORY, "packaging/man").glob("*.rst")))
    assert "python3-docutils" in said
