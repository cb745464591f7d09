"""The shield: from a flush by somebody else to its repair no frame passes, and nothing of it is seen otherwise."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import OTHER, OTHER_IP, THIRD, ether, udp
from tests.support.libvirtd import wait_for
from tests.watch.conftest import WEB, Hypervisor, Service
from tests.watch.test_service import as_before, words

pytestmark = pytest.mark.netns

HONEST, SPOOFED = udp(), udp(src_ip=OTHER_IP)
BARE = ether(src=OTHER, dst=THIRD)
HARM = ("flush ruleset", "delete table bridge nwfilter")
TIMES = 6
SLOW_S = 20.0
SEES = """add table bridge sees
add chain bridge sees post { type filter hook postrouting priority 400; }
add rule bridge sees post meta mark & 0x40000000 != 0 counter comment "marked"
add rule bridge sees post counter comment "all"
"""


@pytest.fixture
def shielded(hypervisor: Hypervisor) -> Hypervisor:
    """A guest under clean-traffic on vnet0, one without a filter on vnet1, and the guard on with a shield."""
    wire = hypervisor.wire
    wire.plug("uplink")
    configure(hypervisor, "yes")
    wire.start("web", domain("web", [WEB]))
    done = hypervisor.command("guard", "on", "--yes", "--boot")
    assert (done.returncode, done.stderr) == (0, ""), done
    wire.start("db", domain("db", [interface("vnet1", None, mac=OTHER)]))
    return hypervisor


def configure(hypervisor: Hypervisor, shield: str) -> None:
    """Section [guard]."""
    hypervisor.wire.configure(f"[guard]\nshield = {shield}\n[watch]\nuri = none\n")
    hypervisor.wire.hook_environment()


def up(hypervisor: Hypervisor) -> bool:
    """Whether the kernel has it."""
    return "table bridge nwfilter-shield" in hypervisor.wire.ruleset()


def slipped(hypervisor: Hypervisor, service: Service, times: int = TIMES) -> int:
    """How many of many forged frames come through while others do harm and the service mends it."""
    wire = hypervisor.wire
    count, rules = 0, words(wire)
    for number in range(times):
        said = service.said().count("were changed by")
        harm = HARM[number % len(HARM)]
        process = wire.start_process("nft", harm, environment=hypervisor.environment, output=wire.directory / "nft.log")
        mended, ends = 0, time.monotonic() + SLOW_S
        while mended < 3 and time.monotonic() < ends:  # a while longer; one report may be of two harms
            for _ in range(200):
                wire.guests["vnet0"].send(SPOOFED)
            count += wire.guests["uplink"].receive().count(SPOOFED)
            mended += service.said().count("were changed by") > said and process.poll() is not None
        wait_for("all is back", partial(as_before, wire, rules), SLOW_S)
    return count


def test_nothing_slips_through(shielded: Hypervisor) -> None:
    """Under a flood, flushed and deleted again and again; without the shield frames do pass meanwhile."""
    with Service(shielded) as service:
        wait_for("the shield", lambda: up(shielded), 10)
        assert slipped(shielded, service) == 0
        assert shielded.wire.passes(HONEST, to="uplink")
        assert shielded.command("verify").stdout == ""
        shown = json.loads(shielded.command("show", "--json", "--host").stdout)
        assert (shown["watch"]["shield"], shown["guard"]["shielded"]) == (True, True)
        for command in (("show",), ("guard", "status")):
            assert "the shield is up\n" in shielded.command(*command).stdout
        configure(shielded, "no")
        assert shielded.command("guard", "on", "--yes", "--boot").returncode == 0
        wait_for("the shield goes", lambda: not up(shielded), 10)
        assert "meta mark" not in shielded.wire.ruleset()
        assert slipped(shielded, service) > 0
        assert shielded.command("verify").stdout == ""


def test_who_is_known_passes(shielded: Hypervisor) -> None:
    """A filtered guest, one without a filter, each way, and marks are nobody else's business."""
    wire = shielded.wire
    with Service(shielded) as service:
        wait_for("the shield", lambda: up(shielded), 10)
        wire.apply(SEES)
        assert wire.passes(HONEST, "vnet0", "uplink")
        assert wire.passes(BARE, "vnet1", "uplink")
        assert wire.passes(ether(dst=OTHER), "uplink", "vnet1")
        assert not wire.passes(SPOOFED, to="uplink")
        wire.plug("vnet2")
        assert not wire.passes(ether(src=THIRD), "vnet2", "uplink")
        seen = json.loads(wire.nft("-j", "list", "chain", "bridge", "sees", "post"))["nftables"]
        packets = {each["rule"]["comment"]: each["rule"]["expr"] for each in seen if "rule" in each}
        assert [each["counter"]["packets"] for each in packets["marked"] if "counter" in each] == [0]
        assert [each["counter"]["packets"] > 0 for each in packets["all"] if "counter" in each] == [True]
        for command in ("delete table", "flush table"):
            with pytest.raises(AssertionError, match="Operation not permitted"):
                wire.apply(f"{command} bridge nwfilter-shield")
        # a guest that starts, changes and stops meanwhile
        wire.start("new", domain("new", [interface("vnet2", "no-mac-spoofing", mac=THIRD)]))
        assert wire.passes(ether(src=THIRD), "vnet2", "uplink")
        wire.stop("new", domain("new", [interface(None, "no-mac-spoofing")]))
        assert not wire.passes(ether(src=THIRD), "vnet2", "uplink")
        assert service.end() == 0
    assert not up(shielded)
    assert "the shield is DOWN: it is up while nwfilter-hook-watch runs\n" in shielded.command("guard", "status").stdout
    assert wire.passes(HONEST, to="uplink")


def test_the_service_is_killed(shielded: Hypervisor) -> None:
    """The shield goes, guard and rules stay; the next one puts it up again."""
    wire = shielded.wire
    for _ in range(2):
        with Service(shielded) as service:
            wait_for("the shield", lambda: up(shielded), 10)
            service.end(signal.SIGKILL)
        wait_for("the shield goes", lambda: not up(shielded), 10)
        assert wire.passes(HONEST, to="uplink")
        assert not wire.passes(SPOOFED, to="uplink")
        wire.plug("vnet3")
        assert not wire.passes(ether(src=THIRD), "vnet3", "uplink")
        wire.unplug("vnet3")


def test_its_owner_is_killed(shielded: Hypervisor) -> None:
    """The shield goes with its nft, guard and rules stay; the service puts it up again by itself."""
    with Service(shielded) as service:
        wait_for("the shield", lambda: up(shielded), 10)
        pid = service.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        assert not shielded.wire.passes(SPOOFED, to="uplink")
        assert shielded.wire.passes(HONEST, to="uplink")
        wait_for("it is put up again", lambda: service.said().count("the shield is up") == 2 and up(shielded), 10)
