"""
What tests/host and tests/watch show of the guard, of drift and of the shield, shown again on Debian's kernel; and the
modes of the guard that name bridges, which that kernel alone can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.host import test_guard
from tests.host.test_guard import bare, configure, guard, host, reached, test_what_is_unknown_drops
from tests.support.domains import domain
from tests.support.host import Sandbox
from tests.support.libvirtd import wait_for
from tests.support.netns import BRIDGE, Wire
from tests.watch.conftest import WEB, Hypervisor, Service, hypervisor
from tests.watch.test_flood import guarded, told_and_flooded
from tests.watch.test_service import test_what_was_learned_stays
from tests.watch.test_shield import shielded, slipped, up

pytestmark = [pytest.mark.vm, pytest.mark.stock_kernel]

__all__ = ["guarded", "host", "hypervisor", "shielded", "test_what_is_unknown_drops", "test_what_was_learned_stays"]

PLUGS = 10
HARMS = 20


@pytest.mark.parametrize("filter_name", ["layer-3", None])
def test_what_is_known_passes(host: Sandbox, filter_name: str | None) -> None:
    """As on any kernel."""
    test_guard.test_what_is_known_passes(host, filter_name, "guard first")


@pytest.mark.parametrize("mode", ["bridges", "strict"])
def test_modes_that_name_bridges(host: Sandbox, mode: str) -> None:
    """Taps in the bridges that are named are cut off, in others not; strict: every port but those that are trusted."""
    wire = host.wire
    wire.add_bridge("br1")
    wire.ip("link set vnet2 master br1", "link add veth0 type veth peer name peer0", "link set peer0 up")
    wire.ip(f"link set veth0 master {BRIDGE} up")
    wire.plug("vnet5", bridge="br1")
    trusted = "trusted = tap-lab" if mode == "strict" else "allow = tap-lab"
    configure(host, f"mode = {mode}\nbridges = {BRIDGE}\n{trusted}")
    listed = {line.split()[0] for line in guard(host, "on").out.splitlines()[:-1]}
    assert listed == {"vnet0", "vnet1"} | ({"veth0"} if mode == "strict" else set())
    guard(host, "on", "--yes").fine()
    assert reached(host, "vnet0") == set()
    assert reached(host, "tap-lab") == set()
    assert "vnet5" in reached(host, "vnet2")
    bare(host, "web", "start")
    assert reached(host, "vnet0") == {"tap-lab"}


def test_plugged_under_a_flood(guarded: Hypervisor) -> None:
    """No frame passes before the filter, and none that it forbids after."""
    told_and_flooded(guarded, 0.0, PLUGS)


@pytest.fixture
def hooks_elsewhere() -> Iterator[None]:
    """
    In another namespace the same hooks stay while all of ours are flushed: the kernel patches its own code when the
    first hook of a kind comes or the last one goes, and an emulated processor that runs that code just then hangs.
    """
    with Wire(("vnet0",)) as wire:
        wire.start("web", domain("web", [WEB]))
        assert wire.command("guard", "on", "--yes", "--boot").returncode == 0
        yield


@pytest.mark.usefixtures("hooks_elsewhere")
def test_nothing_slips_through(shielded: Hypervisor) -> None:
    """The shield: many frames, flushed and deleted again and again."""
    with Service(shielded) as service:
        wait_for("the shield", lambda: up(shielded), 10)
        assert slipped(shielded, service, HARMS) == 0
        assert shielded.command("verify").stdout == ""
