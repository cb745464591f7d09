"""
Under Debian's AppArmor profile of libvirtd, on Debian's kernel: what may stand in libvirt's hooks directory.

The profile is the one that libvirt-daemon-system installs, under another name, so that no libvirtd of this machine is
touched. What is run under it is started by a shell: aa-exec alone would enter the profile without asking it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.test_installed import in_private_system
from tests.support.domains import domain, interface

pytestmark = pytest.mark.stock_kernel

DEBIANS = Path("/etc/apparmor.d/usr.sbin.libvirtd")
SECURITY = Path("/sys/kernel/security")
NAME = "nwfilter-hook-test"


@pytest.fixture
def profile() -> Iterator[None]:
    """The profile is in the kernel, and enforced."""
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    if not enabled.exists() or enabled.read_text().strip() != "Y":
        pytest.skip("the kernel has no AppArmor, or was booted without: apparmor=1 security=apparmor")
    if not (SECURITY / "lsm").exists():
        subprocess.run(["mount", "-t", "securityfs", "securityfs", SECURITY], check=True)
    head = "profile libvirtd /usr/sbin/libvirtd "
    text = DEBIANS.read_text()
    assert head in text
    text = text.replace(head, f"profile {NAME} ")
    subprocess.run(["apparmor_parser", "--add", "--skip-cache"], input=text, text=True, check=True)
    assert f"{NAME} (enforce)" in (SECURITY / "apparmor/profiles").read_text().splitlines()
    yield
    (SECURITY / "apparmor/.remove").write_text(NAME)


@pytest.mark.usefixtures("profile")
def test_the_hook_works_under_libvirts_profile() -> None:
    """A guest's life through the hook as it is installed; a link in its place can't be executed."""
    done = in_private_system(
        f"""
        try() {{
            for operation; do
                aa-exec -p {NAME} -- sh -c "$hook web $operation begin - </run/xml; echo $operation \\$?"
            done
            nft list chain bridge nwfilter from/vnet0 >/dev/null 2>&1 && echo filtered || echo open
        }}
        cat >/run/xml
        ip link add vnet0 type veth peer name guest0
        try start
        try stopped
        sed -i 's|^program=.*|program=/usr/share/nwfilter-hook/none|' $hook
        try start reconnect
        ln -sf "$1/hooks/qemu" $hook
        try start
        """,
        stdin=domain("web", [interface("vnet0", "clean-traffic")]),
        target="hook",
    )
    assert done.returncode == 0, done.stderr
    whole, broken, link = "start 0 filtered stopped 0 open", "start 1 reconnect 0 open", "start 126 open"
    assert done.stdout.split() == f"{whole} {broken} {link}".split(), done.stderr
    assert "/usr/share/nwfilter-hook/none can't run" in done.stderr
    assert "Permission denied" in done.stderr
