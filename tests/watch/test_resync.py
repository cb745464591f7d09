"""resync: what libvirt tells no hook of comes into force, and what is gone goes."""

from __future__ import annotations

import socket

import pytest

from tests.support.domains import domain, interface, uuid_of
from tests.support.frames import OTHER, OTHER_IP, udp
from tests.support.libvirtd import wait_for
from tests.support.netns import REPOSITORY
from tests.watch.conftest import DB, IP, WEB, Hypervisor, Service

pytestmark = pytest.mark.netns

SPOOFED = udp(src_ip=OTHER_IP)
HONEST = udp()


def test_guests_from_before_to_after(hypervisor: Hypervisor) -> None:
    """One that ran before the hook was there, plugged, changed, unplugged, unfiltered, and gone."""
    wire = hypervisor.wire
    hypervisor.runs("web", [WEB])
    assert wire.passes(SPOOFED)
    assert hypervisor.resync() == "1 guest followed\n"
    assert hypervisor.said == "nwfilter-hook: web: vnet0: it was not filtered; now it is, by clean-traffic\n"
    assert wire.passes(HONEST)
    assert not wire.passes(SPOOFED)
    rules = wire.nft("--handle", "--stateless", "list", "table", "bridge", "nwfilter")
    assert hypervisor.resync() == "1 guest followed\n"
    assert hypervisor.said == ""
    assert wire.nft("--handle", "--stateless", "list", "table", "bridge", "nwfilter") == rules  # nothing to do

    wire.plug("vnet2")
    hypervisor.runs("web", [WEB, interface("vnet2", "no-mac-spoofing", mac="52:54:00:00:00:33")])
    hypervisor.resync()
    assert hypervisor.filtered() == {"vnet0", "vnet2"}

    hypervisor.runs("web", [interface("vnet0", "clean-traffic", [("IP", OTHER_IP)])])
    hypervisor.resync()
    assert hypervisor.filtered() == {"vnet0"}
    assert wire.passes(SPOOFED)
    assert not wire.passes(HONEST)

    hypervisor.runs("web", [interface("vnet0", None)])
    hypervisor.resync()
    assert hypervisor.filtered() == set()
    assert wire.passes(SPOOFED)
    assert wire.passes(HONEST)

    hypervisor.runs("web", [WEB])
    hypervisor.runs("db", [DB])
    assert hypervisor.resync() == "2 guests followed\n"
    hypervisor.stops("web")
    assert hypervisor.resync() == "web: doesn't run; its rules are removed\n1 guest followed\n"
    assert hypervisor.filtered() == {"vnet1"}


def test_another_bridge(hypervisor: Hypervisor) -> None:
    """The record says in which bridge the tap is now."""
    wire = hypervisor.wire
    hypervisor.runs("web", [WEB])
    hypervisor.resync()
    wire.add_bridge("br1")
    wire.ip("link set vnet0 master br1")
    hypervisor.runs("web", [interface("vnet0", "clean-traffic", IP, bridge="br1")])
    assert "in another bridge" in hypervisor.command("resync").stderr
    assert '"bridge":"br1"' in (hypervisor.state_dir / "domains" / f"{uuid_of('web')}.json").read_text()
    assert hypervisor.command("verify").stdout == ""


def test_an_interface_without_a_device(hypervisor: Hypervisor) -> None:
    """The XML names a tap that isn't there, on its way or gone: it gets no rules, and the others do."""
    hypervisor.runs("web", [WEB, interface("vnet7", "clean-traffic", IP, mac=OTHER)])
    hypervisor.resync()
    assert hypervisor.filtered() == {"vnet0"}
    hypervisor.wire.plug("vnet7")
    hypervisor.resync()
    assert hypervisor.filtered() == {"vnet0", "vnet7"}
    hypervisor.wire.unplug("vnet7")
    hypervisor.resync()
    assert hypervisor.filtered() == {"vnet0"}


def test_a_renamed_device(hypervisor: Hypervisor) -> None:
    """libvirt knows the tap by its old name: it stays under filter by its new one."""
    hypervisor.runs("web", [WEB])
    hypervisor.resync()
    hypervisor.wire.ip("link set vnet0 down", "link set vnet0 name web0", "link set web0 up")
    assert "called web0 now" in hypervisor.command("resync").stderr
    assert hypervisor.filtered() == {"web0"}
    assert hypervisor.wire.passes(HONEST, sender="vnet0")
    assert not hypervisor.wire.passes(SPOOFED, sender="vnet0")


def test_bindings_by_hand_stay(hypervisor: Hypervisor) -> None:
    """A tap that libvirt doesn't manage is none of its guests'."""
    binding = hypervisor.wire.directory / "binding.xml"
    binding.write_text(
        "<filterbinding><owner><name>hand</name></owner><portdev name='vnet1'/><mac address='52:54:00:00:00:02'/>"
        "<filterref filter='no-mac-spoofing'/></filterbinding>"
    )
    assert hypervisor.command("binding-create", str(binding)).returncode == 0
    assert hypervisor.resync() == "0 guests followed\n"
    assert hypervisor.filtered() == {"vnet1"}


def test_what_is_wrong_is_one_guests_trouble(hypervisor: Hypervisor) -> None:
    """A filter that isn't there: the tap keeps its old rules, others are followed."""
    hypervisor.runs("web", [WEB])
    hypervisor.resync()
    hypervisor.runs("web", [interface("vnet0", "no-such-filter")])
    hypervisor.runs("db", [DB])
    done = hypervisor.command("resync")
    assert "web: vnet0: the old rules stay in force: " in done.stderr
    assert "no filter 'no-such-filter'" in done.stderr
    assert hypervisor.filtered() == {"vnet0", "vnet1"}
    assert hypervisor.wire.passes(HONEST)
    assert not hypervisor.wire.passes(SPOOFED)


MOVES = {
    "the guest stops": "rm {xml}; {hook} web stopped end - <{domain}",
    "its device is another's": "ip link del vnet0; ip tuntap add vnet0 mode tap; rm {xml}",
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("known", [True, False])
def test_old_news(hypervisor: Hypervisor, move: str, known: bool) -> None:
    """What happens between libvirt's answer and our lock is seen: nothing is installed for who isn't there any more."""
    wire = hypervisor.wire
    hypervisor.runs("web", [WEB])
    if known:
        hypervisor.resync()
    stored = wire.directory / "web.xml"
    stored.write_text(domain("web", [WEB]))
    hook = REPOSITORY / "hooks/qemu"
    xml = hypervisor.directory / f"{uuid_of('web')}.xml"
    hypervisor.runs("web", [interface("vnet0", "clean-traffic", [("IP", OTHER_IP)])])
    if not known and move == "the guest stops":
        hypervisor.meanwhile(f"rm {xml}; ip link del vnet0")
    else:
        hypervisor.meanwhile(MOVES[move].format(xml=xml, hook=hook, domain=stored))
    hypervisor.resync()
    assert hypervisor.filtered() == set()
    assert list((hypervisor.state_dir / "domains").glob("*")) == []


def test_who_starts_meanwhile_stays(hypervisor: Hypervisor) -> None:
    """libvirt says that a guest doesn't run; before we have the lock it does: it isn't touched."""
    hypervisor.runs("web", [WEB])
    hypervisor.resync()
    stored = hypervisor.wire.directory / "web.xml"
    stored.write_text(domain("web", [DB]))
    xml = hypervisor.directory / f"{uuid_of('web')}.xml"
    hypervisor.runs("a", [])  # asked about first
    hypervisor.meanwhile(f"{REPOSITORY}/hooks/qemu web start begin - <{stored}; cp {stored} {xml}")
    hypervisor.resync()
    assert hypervisor.filtered() == {"vnet1"}


def test_without_libvirt(hypervisor: Hypervisor) -> None:
    """Without libvirt-python, without a daemon, with uri = none: one line that says what to do."""
    broken = hypervisor.wire.directory / "broken"
    broken.mkdir()
    (broken / "libvirt.py").write_text("raise ImportError\n")
    done = hypervisor.command("resync", PYTHONPATH=str(broken))
    assert done.returncode == 1
    assert done.stderr == (
        "nwfilter-hook: libvirt has to be asked, but libvirt-python isn't there; install python3-libvirt\n"
    )
    done = hypervisor.command("resync", FAKE_LIBVIRT="/nonexistent")
    assert done.returncode == 1
    assert done.stderr.startswith("nwfilter-hook: libvirt, qemu:///system: Failed to connect socket")
    conf = hypervisor.environment["NWFILTER_HOOK_CONF"]
    with open(conf, "a") as file:
        file.write("[watch]\nuri = none\n")
    done = hypervisor.command("resync")
    assert done.returncode == 1
    assert done.stderr == "nwfilter-hook: [watch] uri is none: there is no libvirt to ask\n"


def test_ways_past_are_told(hypervisor: Hypervisor) -> None:
    """In one look for all guests, by resync and by the service: each with whose it is."""
    hypervisor.runs("web", [WEB])
    hypervisor.runs("db", [DB])
    with hypervisor.wire.inside():
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sniffer.bind(("vnet1", 3))
    hypervisor.resync()
    (line,) = (line for line in hypervisor.said.splitlines() if "packet socket" in line)
    assert line.startswith("nwfilter-hook: db: vnet1: ")
    with Service(hypervisor, "qemu:///system") as service:
        service.wait_until_said(line.removeprefix("nwfilter-hook: "))
        wait_for("told", lambda: [each for each in service.told()["refused"] if "packet socket" in each])
        sniffer.close()
        hypervisor.runs("web", [WEB, interface("vnet9", None)])
        (hypervisor.directory / "events").write_text(uuid_of("web"))
        wait_for("gone", lambda: service.told()["refused"] == [])
