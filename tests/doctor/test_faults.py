"""Each check of the doctor sees the fault that it is for, and says what mends it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from nwfilter_hook.cli.main import cli
from nwfilter_hook.doctor.examine import names
from tests.doctor import test_around
from tests.doctor.conftest import ABLE, LACKS_CT, WEB, Ward
from tests.support import bpf
from tests.support.domains import interface
from tests.support.frames import udp

pytestmark = pytest.mark.netns


def broken_configuration(ward: Ward) -> None:
    ward.configure("nonsense = 1")


def no_capability(ward: Ward) -> None:
    ward.fake_nft(LACKS_CT)


def no_capability_that_is_needed(ward: Ward) -> None:
    ward.fake_nft(LACKS_CT)
    (ward.filters / "web.xml").write_text(
        "<filter name='web'><rule action='accept' direction='in'><tcp dstportstart='80'/></rule></filter>"
    )
    ward.defines("shop", interface(None, "web"))


def old_nft(ward: Ward) -> None:
    ward.fake_nft(f'case "$*" in --version) echo "nftables v0.9.8 (E.D.S.)"; exit;; esac; {ABLE}')


def no_nft(ward: Ward) -> None:
    (ward.directory / "nft").unlink()


def no_hook(ward: Ward) -> None:
    ward.hook.unlink()


def hook_astray(ward: Ward) -> None:
    ward.hook.rename(ward.hook.parents[1] / ward.hook.name)


def hook_not_executable(ward: Ward) -> None:
    ward.hook.chmod(0o644)


def hook_is_a_link(ward: Ward) -> None:
    ward.hook.rename(ward.directory / "elsewhere-nwfilter-hook")
    ward.hook.symlink_to(ward.directory / "elsewhere-nwfilter-hook")


def hook_without_program(ward: Ward) -> None:
    ward.hook.write_text("#!/bin/sh\nprogram=/usr/share/nwfilter-hook/gone\n")


def hook_twice(ward: Ward) -> None:
    second = ward.hook.with_name("60-copy-of-nwfilter-hook")
    second.write_bytes(ward.hook.read_bytes())
    second.chmod(0o755)


def rules_flushed(ward: Ward) -> None:
    ward.nft("flush chain bridge nwfilter from/vnet0")


def unknown_element(ward: Ward) -> None:
    ward.nft('add element bridge nwfilter from-guest-l2 { "vnet9" : accept }')


def device_gone(ward: Ward) -> None:
    ward.wire.unplug("vnet0")


def quarantined(ward: Ward) -> None:
    record = json.loads(ward.record().read_text())
    record["bindings"][0]["quarantined"] = True
    ward.record().write_text(json.dumps(record))


def refused(ward: Ward) -> None:
    ward.serve(refused=("db: vnet1: no filter 'secure'",))


def tc_redirect(ward: Ward) -> None:
    u32 = "protocol all u32 match u8 0 0"
    ward.wire.run(*["tc", "qdisc", "add", "dev", "vnet0", "clsact"])
    ward.wire.run(*f"tc filter add dev vnet0 ingress pref 7 {u32} action mirred egress redirect dev vnet1".split())


def xdp_program(ward: Ward) -> None:
    with ward.wire.inside():
        bpf.attach_xdp(socket.if_nametoindex("vnet0"), bpf.GENERIC)


def forwarding_table(ward: Ward) -> None:
    ward.nft("table netdev x { chain c { type filter hook ingress device vnet0 priority 0; fwd to vnet1; }; }")


def sniffer(ward: Ward) -> None:
    with ward.wire.inside():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind(("vnet0", 0))
    ward.keep(raw)


def service_off(ward: Ward) -> None:
    (ward.state_dir / "watch.json").unlink()


def service_dead(ward: Ward) -> None:
    ward.end_service()


def service_deaf(ward: Ward) -> None:
    ward.serve(libvirt="libvirt, qemu:///system: Connection refused")


def clock_behind(ward: Ward) -> None:
    then = time.time() + 86_400
    os.utime(ward.record(), (then, then))


def filter_for_everybody(ward: Ward) -> None:
    path = ward.filters / "open.xml"
    path.write_text("<filter name='open'/>")
    path.chmod(0o666)


def state_for_everybody(ward: Ward) -> None:
    ward.state_dir.chmod(0o777)


def state_readable(ward: Ward) -> None:
    ward.state_dir.chmod(0o755)


def record_of_schema_1(ward: Ward) -> None:
    record = json.loads(ward.record().read_text())
    record["bindings"][0]["installed"]["whole"] = False
    ward.record().write_text(json.dumps(record))


def record_unreadable(ward: Ward) -> None:
    ward.record().write_text("{")


def records_aside(ward: Ward) -> None:
    (ward.state_dir / "unreadable").mkdir()
    (ward.state_dir / "unreadable/x").touch()


def stopped_while_nft_failed(ward: Ward) -> None:
    ward.record().rename(f"{ward.record()}.leftover")


def update_cut_off(ward: Ward) -> None:
    (ward.state_dir / "domains/update.journal").write_text(f"{ward.filters}/.define-web.new")


def guard_off(ward: Ward) -> None:
    ward.configure("[guard]\nmode = off")


def guard_flushed(ward: Ward) -> None:
    ward.guard_on()
    ward.nft("delete element bridge nwfilter from-guest-l2 { * }")


def guard_otherwise(ward: Ward) -> None:
    ward.guard_on()
    ward.configure("[guard]\nmode = taps\nallow = vnet*")


def tap_refused(ward: Ward) -> None:
    ward.guard_on()
    ward.wire.plug("vnet7")
    ward.wire.arrivals(udp(), "vnet7")


def half_an_installation(ward: Ward) -> None:
    (ward.libvirt / "hooks/.50-nwfilter-hook").touch()


Fault = tuple[str, str, str, str]
"""Check, level, words of the finding, command; "" for any."""

FAULTS: dict[Callable[[Ward], None], Fault] = {
    broken_configuration: ("configuration", "wrong", "unknown key 'nonsense'", ""),
    no_capability: ("kernel-features", "hint", "CONFIG_NF_CONNTRACK_BRIDGE", ""),
    no_capability_that_is_needed: ("kernel-features", "wrong", "rules of layer 3", ""),
    old_nft: ("nft-program", "wrong", "nft is version 0.9.8, older than 1.0.6", "apt install nftables"),
    no_nft: ("nft-program", "wrong", "can't be started", "apt install nftables"),
    no_hook: ("hook-installed", "wrong", "there is no hook", "make install"),
    hook_astray: ("hook-installed", "wrong", "where libvirt doesn't look", "make install"),
    hook_not_executable: (
        "hook-installed",
        "wrong",
        "isn't executable",
        "chmod 755 /etc/libvirt/hooks/qemu.d/50-nwfilter-hook",
    ),
    hook_is_a_link: ("hook-installed", "wrong", "is a link to", "make install"),
    hook_without_program: ("hook-installed", "wrong", "nwfilter-hook/gone, which isn't there", "make install"),
    hook_twice: ("hook-installed", "hint", "there are 2 hooks of ours", ""),
    rules_flushed: (
        "in-force",
        "wrong",
        "web: vnet0: chain from/vnet0 lacks a rule",
        "nwfilter-hook verify vnet0 --repair",
    ),
    unknown_element: ("in-force", "wrong", "vnet9: no record knows of this tap", "nwfilter-hook verify --repair"),
    device_gone: ("in-force", "wrong", "web: vnet0: the device is gone", "nwfilter-hook verify vnet0 --repair"),
    quarantined: ("quarantine", "wrong", "web: vnet0 is quarantined", "nwfilter-hook replay web reconnect"),
    refused: ("quarantine", "wrong", "db: vnet1: no filter 'secure'", ""),
    tc_redirect: ("bypasses", "wrong", "redirects frames to vnet1", "tc filter del dev vnet0 ingress"),
    xdp_program: ("bypasses", "wrong", "(generic) gets the frames of vnet0", "ip link set dev vnet0 xdp off"),
    forwarding_table: ("bypasses", "wrong", "may send frames elsewhere (fwd)", "nft delete table netdev x"),
    sniffer: ("bypasses", "hint", "a packet socket on vnet0", "ss --packet --processes"),
    service_off: ("service", "hint", "nwfilter-hook-watch is off", "systemctl enable --now nwfilter-hook-watch"),
    service_dead: ("service", "wrong", "has ended", "systemctl restart nwfilter-hook-watch"),
    service_deaf: ("service", "wrong", "Connection refused", ""),
    clock_behind: ("clock", "wrong", "the record of web was written 86", ""),
    filter_for_everybody: ("permissions", "wrong", "open.xml may be written by everybody", ""),
    state_for_everybody: ("permissions", "wrong", "state may be written by everybody", ""),
    state_readable: ("permissions", "hint", "may be looked into by others", ""),
    record_of_schema_1: ("leftovers", "hint", "the record of web (vnet0) is an earlier version's", ""),
    record_unreadable: ("leftovers", "wrong", "it can't be read", ""),
    records_aside: ("leftovers", "hint", "holds 1 records", ""),
    stopped_while_nft_failed: ("leftovers", "hint", "web has stopped", ""),
    update_cut_off: ("leftovers", "wrong", "a change of filters was cut off", "nwfilter-hook reload"),
    guard_off: ("guard", "hint", "the guard is off; first set [guard] mode", "nwfilter-hook guard on"),
    guard_flushed: ("guard", "wrong", "the guard: ", "nwfilter-hook guard on"),
    guard_otherwise: ("guard", "hint", "not as the configuration has it", "nwfilter-hook guard on"),
    tap_refused: (
        "guard",
        "wrong",
        "vnet7 on br0 is cut off",
        "nwfilter-hook resync",
    ),
    half_an_installation: ("leftovers", "hint", "is left of an installation", "make install"),
}


@pytest.mark.parametrize("make", FAULTS, ids=lambda make: str(make.__name__))
def test_a_fault_is_named(ward: Ward, make: Callable[[Ward], None]) -> None:
    """With the level, the sentence and the command that its table has; the exit status goes by the level."""
    check, level, words, command = FAULTS[make]
    make(ward)
    found = [each for each in ward.findings(check) if words in each["finding"]]
    assert [(each["check"], each["level"]) for each in found] == [(check, level)], found
    assert not command or found[0]["command"] == command


NEEDS_MORE = {"hook-known", "conntrack-table", "notrack"}
"""Checks whose fault is made by a test of its own."""


def test_every_check_has_a_fault() -> None:
    """One that no test makes would be a promise."""
    around = {check for check, level, _, _ in test_around.CASES.values() if level}
    assert {check for check, _, _, _ in FAULTS.values()} | around | NEEDS_MORE == set(names())


def test_nothing_is_wrong(ward: Ward) -> None:
    """On a host without a fault no check finds anything; that nobody keeps the clock is this machine's matter."""
    ward.guard_on()
    assert [each for each in ward.findings() if each["finding"] != "nothing keeps the clock right"] == []
    ward.defines("web", WEB)
    done = ward.command("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(f"{len(names())} checks: 0 wrong, ")


def test_the_hook_is_newer_than_libvirtd(ward: Ward) -> None:
    """By the daemon's start in /proc; one that has started a hook since knows it all the same."""
    # the kernel tells a start in hundredths of a second, the time of boot in whole ones
    libvirtd = "cp /bin/sleep /run/libvirtd; /run/libvirtd 60 >/dev/null 2>&1 & sleep 1.3;"
    os.utime(ward.record(), (1, 1))
    assert ward.findings("hook-known", before=libvirtd) == []
    words = "the hook is newer than libvirtd ("
    newer = f"{libvirtd} touch /etc/libvirt/hooks/qemu.d/*"
    ward.finds("hook-known", "wrong", words, "systemctl restart libvirtd", before=newer)
    assert ward.findings("hook-known", before=f"{newer} {ward.record()}") == []


@pytest.mark.parametrize(("count", "level"), [(74, None), (80, "hint"), (96, "wrong")])
def test_the_table_of_connections(ward: Ward, count: int, level: str | None) -> None:
    """How full it is decides; the figures are bound over the kernel's."""
    place = "/proc/sys/net/netfilter/nf_conntrack"
    before = f"cd {ward.directory}; echo {count} >count; echo 100 >max; "
    before += f"mount --bind count {place}_count; mount --bind max {place}_max"
    if level is None:
        assert ward.findings("conntrack-table", before=before) == []
    else:
        words = f"tracks {count} connections and has room for 100"
        ward.finds("conntrack-table", level, words, "sysctl -w net.netfilter.nf_conntrack_max=400", before=before)


def test_a_configuration_that_others_may_write(ward: Ward) -> None:
    """It isn't used, and who may write it is named with the command that mends it."""
    conf = f"{ward.directory}/nwfilter-hook.conf"
    before = f"chmod 666 {conf}"
    ward.finds("configuration", "wrong", f"{conf} is not relied on", before=before)
    ward.finds("permissions", "wrong", f"{conf} may be written by everybody", f"chmod o-w {conf}", before=before)


def test_only_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody else would see half of it, and take the rest for well."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(cli, ["doctor"])
    assert (done.exit_code, str(done.exception)) == (1, "only root can look at all that has to be looked at")


def test_json(ward: Ward) -> None:
    """The keys that the manual names."""
    ward.end_service()
    found = json.loads(ward.command("doctor", "service", "--json").stdout)
    assert set(found) == {"checks", "findings"}
    assert [set(each) for each in found["findings"]] == [{"check", "level", "finding", "why", "command"}]


def test_what_it_is_called_with(ward: Ward) -> None:
    """A check that there isn't is refused with the one that is meant; only those that are named run."""
    done = ward.command("doctor", "clok")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no check 'clok'; did you mean 'clock'?" in done.stderr
    assert json.loads(ward.command("doctor", "--json", "service", "clock").stdout)["checks"] == ["clock", "service"]
    assert ward.command("doctor", "--jsn").returncode == 2
