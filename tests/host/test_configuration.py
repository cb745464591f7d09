"""The configuration file: what is wrong in it is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.domains import domain, interface
from tests.support.host import GUEST, HOOK, TAP, Sandbox, guest_xml

pytestmark = pytest.mark.hook


BREAKS: dict[str, Callable[[str], str]] = {
    "another key": lambda text: text + "\n[nftables]\ncounter = all\n",
    "a wrong value": lambda text: text + "\n[defaults]\nbridge. = x\n",
    "a default's parameter": lambda text: text + "\n[defaults]\nbridge.br0 = mine A-B=1\n",
    "twice": lambda text: text + "\n[paths]\nstate_dir = /elsewhere\n",
    "a misspelt state_dir": lambda text: text.replace("state_dir", "state_dri"),
    "a misspelt section": lambda text: text.replace("[paths]", "[path]"),
    "wrong filter_dirs": lambda text: text.replace("filter_dirs = /", "filter_dirs = "),
    "a NUL": lambda text: text + "\0",
}


@pytest.mark.parametrize("how", [*BREAKS, "writable"])
def test_a_broken_configuration_keeps_no_running_guest_from_its_rules(box: Sandbox, how: str) -> None:
    """After `nft flush ruleset` reconnect puts the rules back by the last good configuration, and says so."""
    box.write_filter("mine", "<rule action='drop' direction='out'><mac protocolid='ipv6'/></rule>")
    xml = box.start(filter_name="mine")
    if how == "writable":
        box.conf.chmod(0o666)
    else:
        box.conf.write_text(BREAKS[how](box.conf.read_text()))
    box.forget_bystander()
    before = box.kernel(TAP)
    box.nft_script("flush ruleset\n")
    box.hook("new", "start", guest_xml("new", "vnet9")).refused(str(box.conf))
    ran = box.hook(GUEST, "reconnect", xml)
    assert ran.status == 0
    assert ran.lines[0].startswith(f"nwfilter-hook: {GUEST}: {box.conf}")
    assert ran.lines[0].endswith(f"; going by the last good one, {box.state_dir}/configuration")
    assert box.kernel(TAP) == before
    assert box.hook(GUEST, "stopped", guest_xml(GUEST, None)).status == 0
    box.assert_nothing_left()


@pytest.mark.parametrize("how", ["fifo", "text", "writable", "gone wrong before any start"])
def test_the_hosts_own_configuration(box: Sandbox, how: str) -> None:
    """libvirt names no file: for a broken one in /etc stands what the host's state directory has, or the defaults."""
    etc, run = box.directory / "etc", box.directory / "run"
    conf = etc / "nwfilter-hook" / "nwfilter-hook.conf"
    conf.parent.mkdir(parents=True)
    run.mkdir()
    conf.write_text("[nftables]\ncounters = none\n")
    mounts = f'mount --bind {etc} /etc; mount --bind {run} /run; exec "$@"'
    command = ("env", "-u", "NWFILTER_HOOK_CONF", "unshare", "--mount", "sh", "-ec", mounts, "sh", HOOK)
    box.hook(GUEST, "start", guest_xml(), command=command).fine()
    before = box.kernel(TAP)
    if how == "fifo":
        conf.unlink()
        os.mkfifo(conf)
    elif how == "writable":
        conf.chmod(0o666)
    else:
        conf.write_text("[nftables]\ncounter = all\n")
    if how.startswith("gone"):
        (run / "nwfilter-hook" / "configuration").unlink()
    box.forget_bystander()
    box.nft_script("flush ruleset\n")
    which = "the lines of it that are right" if how.startswith("gone") else "the last good one, /run/nwfilter-hook/conf"
    box.hook(GUEST, "reconnect", guest_xml(), command=command).excused("/etc/nwfilter-hook/", f"going by {which}")
    assert box.kernel(TAP) == before
    assert box.hook(GUEST, "stopped", guest_xml(GUEST, None), command=command).status == 0
    assert box.kernel(TAP) == []


@pytest.mark.parametrize("text", ["", "[nonsense]\n", "[paths]\nstate_dri = /elsewhere\n"])
def test_a_broken_trial_is_no_reason_to_touch_the_host(box: Sandbox, text: str) -> None:
    """What NWFILTER_HOOK_CONF names, and doesn't say where its state is, leads to nobody else's state."""
    xml = box.start()
    box.conf.write_text(text + "[language]\nend_of_chain = maybe\n")
    before = Path("/run/nwfilter-hook").exists()
    with box.unchanged():
        for operation in ("reconnect", "stopped", "release"):
            line = box.hook(GUEST, operation, xml).excused(str(box.conf))
            assert "going by" not in line
    assert Path("/run/nwfilter-hook").exists() == before


def test_without_a_last_good_configuration_the_good_lines_count(box: Sandbox) -> None:
    """What the file says in lines that are right is used, and the defaults for the rest."""
    xml = box.start()
    (box.state_dir / "configuration").unlink()
    box.conf.write_text(box.conf.read_text() + "[language]\nend_of_chain = maybe\n")
    box.forget_bystander()
    before = box.kernel(TAP)
    box.nft_script("flush ruleset\n")
    box.hook(GUEST, "reconnect", xml).excused("'maybe' is not one of", "going by the lines of it that are right")
    assert box.kernel(TAP) == before


@pytest.mark.parametrize("how", ["owner", "writable", "link", "nonsense"])
def test_a_last_good_configuration_that_isnt_ours_is_not_used(box: Sandbox, how: str) -> None:
    """It is as good as not there if others may write it, or if it is of no use."""
    xml = box.start()
    kept = box.state_dir / "configuration"
    assert kept.read_text() == box.conf.read_text()
    if how == "owner":
        os.chown(kept, 1000, 0)
    elif how == "writable":
        kept.chmod(0o666)
    elif how == "link":
        kept.rename(box.directory / "elsewhere")
        kept.symlink_to(box.directory / "elsewhere")
    else:
        kept.write_text("[nonsense]\n")
    box.conf.write_text(box.conf.read_text() + "[language]\nend_of_chain = maybe\n")
    with box.unchanged():
        box.hook(GUEST, "reconnect", xml).excused("going by the lines of it that are right")


def test_a_broken_configuration_is_no_concern_of_an_unfiltered_guests_end(box: Sandbox) -> None:
    """stopped, release and reconnect end with 0 whatever the configuration says."""
    box.conf.write_text("[nonsense]\n")
    for operation in ("stopped", "release", "reconnect", "started"):
        assert box.hook(GUEST, operation, guest_xml(filter_name=None)).status == 0


def test_comments_blanks_and_windows_line_ends_are_fine(box: Sandbox) -> None:
    """What people write in an INI file is read."""
    text = box.conf.read_text().replace(" = ", "=").replace("\n", "\r\n")
    box.conf.write_text(f"; a comment\r\n\r\n{text}\r\n# counters = nonsense\r\n  counters =  all  \r\n")
    box.hook(GUEST, "start", guest_xml()).fine()
    rules = [line for line in box.kernel(TAP) if '"rule"' in line]
    assert rules
    assert [line for line in rules if '"counter"' not in line] == []


def test_a_default_by_network_or_pattern(box: Sandbox) -> None:
    """The first that fits counts, with its parameters; the guest can be checked before its bridge is known."""
    box.write_filter("port", "<rule action='drop' direction='out'><ip protocol='udp' dstportstart='$PORT'/></rule>")
    box.configure("[defaults]\nnetwork.l* = port PORT=53 PORT=67\nbridge.vir* = allow-arp\nbridge.* = port PORT=1")
    lan = "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='lan'{}/>{}</interface>"
    prepared = domain(GUEST, [lan.format("", "")])
    started = domain(
        GUEST,
        [
            lan.format(" bridge='virbr0'", f"<target dev='{TAP}'/>"),
            interface("vnet1", None, bridge="virbr9", mac="52:54:00:00:00:02"),
            interface("vnet2", None, mac="52:54:00:00:00:03"),
        ],
    )
    box.hook(GUEST, "prepare", prepared).fine()
    box.hook(GUEST, "start", started).fine()
    text = {tap: "\n".join(box.kernel(tap)) for tap in (TAP, "vnet1", "vnet2")}
    assert [port for port in (1, 53, 67) if f'"right": {port}}}' in text[TAP]] == [53, 67]
    assert "allow-arp:" in text["vnet1"]
    assert [port for port in (1, 53, 67) if f'"right": {port}}}' in text["vnet2"]] == [1]
    box.configure("[defaults]\nnetwork.l* = port PORT=web")
    with box.unchanged():
        box.hook(GUEST, "prepare", prepared).refused(f"{box.conf}:6: parameter PORT: 'web' can't be dstportstart")


def test_a_default_filter_that_isnt_there_refuses_the_guest(box: Sandbox) -> None:
    """A default that names no filter is an error for the guests it would be for."""
    box.configure("[defaults]\nbridge.br0 = no-such-filter")
    with box.unchanged():
        box.hook(GUEST, "start", guest_xml(filter_name=None)).refused("no-such-filter")
        box.hook(GUEST, "start", guest_xml(filter_name=None, bridge="br1")).fine()


def test_the_stock_filters_need_no_configuration(box: Sandbox) -> None:
    """Without filter_dirs the administrator's and the stock filters are found."""
    box.conf.write_text(f"[paths]\nstate_dir = {box.state_dir}\n")
    box.hook(GUEST, "start", guest_xml()).fine()
    assert box.in_force()


def test_no_configuration_file_at_all(box: Sandbox) -> None:
    """Without NWFILTER_HOOK_CONF and /etc/nwfilter-hook a check works by the defaults."""
    if Path("/etc/nwfilter-hook").exists():
        pytest.skip("/etc/nwfilter-hook exists on this machine")
    box.hook(GUEST, "prepare", guest_xml(), command=("env", "-u", "NWFILTER_HOOK_CONF", HOOK)).fine()
