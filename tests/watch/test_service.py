"""watch, kernel side: what others do to our rules is put back at once and told; devices that move are followed."""

from __future__ import annotations

import json
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import OTHER_IP, udp
from tests.support.libvirtd import wait_for
from tests.support.netns import REPOSITORY, Wire
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


def test_what_show_tells(hypervisor: Hypervisor) -> None:
    """`show` ends with the service; taps say since when and by which event they have their rules."""
    hypervisor.runs("web", [WEB])
    with Service(hypervisor, "qemu:///system") as service:
        service.wait_until_said("web: vnet0: it was not filtered; now it is, by clean-traffic")
        hypervisor.wire.apply(f"flush chain {TABLE} from/vnet0")
        service.wait_until_said("were changed by")
        shown = hypervisor.command("show").stdout
        assert "watch: runs since 20" in shown
        assert f", process {service.process.pid}; libvirt: connected\n" in shown
        assert "watch: 1 guests looked at until 20" in shown
        assert "watch: rules of 1 taps changed by nft (" in shown
        found = json.loads(hypervisor.command("show", "--json", "--host").stdout)
        assert found["watch"]["running"] is True
        assert found["taps"] == json.loads(hypervisor.command("show", "--json").stdout)
        assert found["taps"][0]["event"] == "resync"
        assert found["taps"][0]["since"].startswith("20")
        assert service.end() == 0
    assert "watch: does NOT run any more; libvirt: connected\n" in hypervisor.command("show").stdout


def test_it_is_killed_and_started_again(hypervisor: Hypervisor) -> None:
    """Nothing opens; what was changed while it was dead is put back as the next one starts."""
    wire = hypervisor.wire
    wire.start("web", domain("web", [WEB]))
    with Service(hypervisor) as service:
        assert hypervisor.command("watch").stderr == (
            f"nwfilter-hook: another nwfilter-hook watch runs already, process {service.process.pid}\n"
        )
        service.end(signal.SIGKILL)
    assert not wire.passes(SPOOFED)
    wire.apply("flush ruleset")
    assert wire.passes(SPOOFED)
    with Service(hypervisor) as service:
        assert "web: vnet0: chain " in service.said()
        assert not wire.passes(SPOOFED)


def test_too_many_events(hypervisor: Hypervisor) -> None:
    """A burst of somebody else's rules: events are lost or not, our rules are as recorded, nothing is said of it."""
    wire = hypervisor.wire
    wire.start("web", domain("web", [WEB]))
    with Service(hypervisor) as service:
        many = "\n".join(f"add rule bridge other c meta mark {number} drop" for number in range(10000))
        wire.apply(f"add table bridge other\nadd chain bridge other c\n{many}")
        wire.apply(f"delete table bridge other\nflush chain {TABLE} from/vnet0")
        service.wait_until_said("were changed by nft (")
        assert hypervisor.command("verify").stdout == ""
        assert service.end() == 0


def test_a_tap_moves_and_goes(hypervisor: Hypervisor) -> None:
    """Renamed, in another bridge, gone: without libvirt, from the records alone."""
    wire = hypervisor.wire
    wire.start("web", domain("web", [WEB]))
    wire.add_bridge("br1")
    with Service(hypervisor) as service:
        wire.ip("link set vnet0 down", "link set vnet0 name web0", "link set web0 up")
        service.wait_until_said("web: vnet0: the device is renamed to web0; made anew")
        assert hypervisor.filtered() == {"web0"}
        wire.ip("link set web0 master br1")
        service.wait_until_said("web: web0: the device is in another bridge, br1; made anew")
        wire.unplug("vnet0")
        service.wait_until_said("web: web0: the device is gone; its rules are removed")
        assert hypervisor.filtered() == set()
        assert "were changed" not in service.said()


def test_what_was_learned_stays(hypervisor: Hypervisor) -> None:
    """After a flush the guest has the address that it had learned, and no other can take it."""
    wire = hypervisor.wire
    wire.start("web", domain("web", [interface("vnet0", "clean-traffic")]))
    assert wire.passes(HONEST)  # learned
    assert not wire.passes(SPOOFED)
    with Service(hypervisor) as service:
        wire.apply("flush ruleset")
        service.wait_until_said("vnet0: what it had learned it has learned again: 10.0.0.1")
        assert not wire.passes(SPOOFED)
        assert wire.passes(HONEST)
        # another guest's tap of the same name gets nothing of it
        wire.stop("web", domain("web", [interface(None, "clean-traffic")]))
        wire.start("db", domain("db", [interface("vnet0", "clean-traffic")]))
        wire.apply("flush ruleset")
        wait_for("told", lambda: service.said().count("were changed by") == 2, 10)
        assert service.said().count("learned again") == 1


def test_what_keeps_it_from_starting(hypervisor: Hypervisor) -> None:
    """
    Without python3-libvirt: one line, exit status 1. With uri = none it needs no libvirt; a configuration that somebody
    breaks leaves nobody alone, as with hooks that look after guests that run.
    """
    broken = hypervisor.wire.directory / "broken"
    broken.mkdir()
    (broken / "libvirt.py").write_text("raise ImportError\n")
    for arguments in (("watch",), ("watch", "--once")):
        done = hypervisor.command(*arguments, PYTHONPATH=str(broken))
        assert (done.returncode, done.stderr) == (
            1,
            "nwfilter-hook: libvirt has to be asked, but libvirt-python isn't there; install python3-libvirt, or set "
            "[watch] uri = none in the configuration\n",
        )
    with Service(hypervisor, PYTHONPATH=str(broken)) as service:
        conf = Path(hypervisor.environment["NWFILTER_HOOK_CONF"])
        conf.write_text(conf.read_text() + "poll_s = 0\n")
        hypervisor.wire.apply("add table bridge nwfilter\nadd chain bridge nwfilter from/vnet0")
        service.wait_until_said("poll_s = '0' is not a number of seconds from 1 to 86400; going by ")
        assert service.end() == 0


def test_another_version_is_installed(hypervisor: Hypervisor, tmp_path: Path) -> None:
    """The service ends, for systemd to start the new one: half of each would be in memory."""
    shutil.copytree(REPOSITORY / "nwfilter_hook", tmp_path / "nwfilter_hook")
    shutil.copytree(REPOSITORY / "filters", tmp_path / "filters")
    with Service(hypervisor, tree=tmp_path) as service:
        (tmp_path / "new.py").write_text((tmp_path / "nwfilter_hook/config.py").read_text())
        (tmp_path / "new.py").rename(tmp_path / "nwfilter_hook/config.py")
        service.wait_until_said("another version of the package has been installed: ending, to be started anew")
        assert service.process.wait(20) == 0
