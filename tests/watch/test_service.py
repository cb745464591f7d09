"""watch, kernel side: what others do to our rules is put back at once and told; devices that move are followed."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import OTHER_IP, udp
from tests.support.libvirtd import wait_for
from tests.support.netns import Wire
from tests.watch.conftest import DB, WEB, Hypervisor, Service

pytestmark = pytest.mark.netns

SPOOFED = udp(src_ip=OTHER_IP)
HONEST = udp()
TABLE = "bridge nwfilter"

CHANGES = {
    "flush ruleset": "flush ruleset",
    "delete table": f"delete table {TABLE}",
    "flush chain": f"flush chain {TABLE} from/vnet0",
    "insert rule": f"insert rule {TABLE} from/vnet0 accept",
    "delete element": f'delete element {TABLE} from-guest-l2 {{ "vnet0" }}',
    "exchange element": (
        f'delete element {TABLE} from-guest-l2 {{ "vnet0" }}; add element {TABLE} from-guest-l2 {{ "vnet0" : accept }}'
    ),
    "flush base chain": f"flush chain {TABLE} l2-prerouting",
}


def words(wire: Wire) -> list[str]:
    """Everything in the kernel, in whatever order it came there."""
    return sorted(wire.ruleset().replace(",", " ").split())


def as_before(wire: Wire, before: list[str]) -> bool:
    """Whether the kernel has that again."""
    return words(wire) == before


def told(service: Service, times: int) -> bool:
    """Whether it was said so often that somebody changed something."""
    return service.said().count("were changed by nft (") == times


def test_drift(hypervisor: Hypervisor) -> None:
    """Whatever somebody does to our rules is undone within a moment, and the line says who it was."""
    wire = hypervisor.wire
    wire.start("web", domain("web", [WEB]))
    wire.start("db", domain("db", [DB]))
    with Service(hypervisor) as service:
        for number, change in enumerate(CHANGES.values(), 1):
            rules = words(wire)
            wire.apply(change.replace("; ", "\n"))
            wait_for(change, partial(as_before, wire, rules), 10)
            wait_for("told", partial(told, service, number), 10)
            assert wire.passes(HONEST)
            assert not wire.passes(SPOOFED)
        drifted = service.told()["drifted"]
        assert (len(drifted["who"]), drifted["what"][0].endswith("; put back")) == (1, True), drifted
        assert hypervisor.command("verify").stdout == ""
        said = service.said()
        # nobody else's transaction is taken for drift
        wire.start("db", domain("db", [DB]))
        wire.apply("add table inet other\nadd chain inet other forward { type filter hook forward priority 0; }")
        hypervisor.command("reload")
        wire.stop("db", domain("db", [interface(None, "clean-traffic")]))
        wire.apply(f"flush chain {TABLE} from/vnet0")
        wait_for("told", lambda: service.said().count("were changed by") == len(CHANGES) + 1, 10)
        assert "vnet1" not in service.said()[len(said) :]
        assert service.end() == 0
        assert service.said().endswith("nwfilter-hook: ended; the rules stay in force\n")
    assert not wire.passes(SPOOFED)
