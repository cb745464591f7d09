"""Every operation, when all is well and when it isn't: design section 5."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.domains import HOOK_EVENTS, uuid_of
from tests.support.host import (
    BYSTANDER,
    BYSTANDER_TAP,
    ENVIRONMENT,
    FILTER,
    GUEST,
    HOOK,
    NOT_XML,
    OWN_SYSFS,
    TAP,
    Sandbox,
    guest_xml,
)
from tests.support.netns import REPOSITORY

pytestmark = pytest.mark.hook

CHECKING = ("prepare", "migrate", "restore")
INSTALLING = ("start", "attach")
REMOVING = ("stopped", "release")
NOTHING = ("started", "no-such-operation", "", "START", "$(reboot)")
EVERY = (*CHECKING, *INSTALLING, *REMOVING, "reconnect", *NOTHING)
FATAL = (*CHECKING, *INSTALLING)
MISSING_FILTER = guest_xml(filter_name="no-such-filter")


@pytest.mark.parametrize("operation", EVERY)
def test_no_operation_complains_when_all_is_well(box: Sandbox, operation: str) -> None:
    """Every operation of a new guest ends with 0 and without a word, but reconnect says what it put in force."""
    ran = box.hook(GUEST, operation, guest_xml())
    if operation == "reconnect":
        ran.excused(GUEST, TAP, "it was not filtered; now it is")
    else:
        ran.fine()


@pytest.mark.parametrize("operation", [*CHECKING, *REMOVING, *NOTHING])
def test_only_start_attach_and_reconnect_install(box: Sandbox, operation: str) -> None:
    """Checking, removing what isn't there, and operations we don't know change nothing at all."""
    with box.unchanged():
        box.hook(GUEST, operation, guest_xml()).fine()


@pytest.mark.parametrize("operation", [*INSTALLING, "reconnect"])
def test_rules_and_record_come_together(box: Sandbox, operation: str) -> None:
    """start, attach and reconnect put the guest's filter in force and write its record."""
    assert box.hook(GUEST, operation, guest_xml()).status == 0
    assert box.in_force()
    record = box.record()
    assert (record["guest"], record["uuid"]) == (GUEST, uuid_of(GUEST))
    assert record["bindings"][0]["tap"] == TAP
    assert box.record_path().stat().st_mode & 0o777 == 0o600
    assert box.state_dir.stat().st_mode & 0o777 == 0o700
    box.check_tidy()


@pytest.mark.parametrize("operation", REMOVING)
def test_stopped_and_release_remove_everything(box: Sandbox, operation: str) -> None:
    """Each of the two removes the guest's chains, map elements, sets and record; again is fine."""
    box.running()
    box.hook(GUEST, operation, guest_xml(GUEST, None)).fine()
    box.assert_nothing_left()
    with box.unchanged():
        box.hook(GUEST, operation, guest_xml(GUEST, None)).fine()


def test_the_last_guest_leaves_no_trace_but_the_empty_frame(box: Sandbox) -> None:
    """When the last guest has gone no chain, element or record of any guest is left."""
    box.running()
    box.stop()
    assert box.finish(box.begin(BYSTANDER, "stopped"), guest_xml(BYSTANDER, None)).status == 0
    assert box.files() == {}
    assert not any("/" in line for line in box.kernel() if '"chain"' in line or '"set"' in line)
    for name in ("from-guest-l2", "to-guest-l2", "from-guest-l3", "to-guest-l3"):
        assert "jump" not in box.nft("list", "map", "bridge", "nwfilter", name)
    assert box.kernel(TAP) == []
    box.forget_bystander()  # gone, on purpose


@pytest.mark.parametrize("operation", EVERY)
@pytest.mark.parametrize("xml", [NOT_XML, MISSING_FILTER], ids=("not-xml", "missing-filter"))
def test_a_failure_means_what_the_operation_makes_of_it(box: Sandbox, operation: str, xml: str) -> None:
    """What can't be done is refused before the guest runs, and never told to libvirt afterwards."""
    before = box.kernel(TAP)
    ran = box.hook(GUEST, operation, xml)
    if operation in FATAL:
        ran.refused(GUEST, "no-such-filter" if xml is MISSING_FILTER else "XML")
        assert box.kernel(TAP) == before
        box.assert_nothing_left()
    elif operation == "reconnect":
        ran.excused(GUEST, "no-such-filter" if xml is MISSING_FILTER else "XML")
        assert box.quarantined() == (xml is MISSING_FILTER)
    else:
        assert ran.status == 0
        box.assert_nothing_left()


@pytest.mark.parametrize("operation", EVERY)
def test_a_broken_configuration_means_what_the_operation_makes_of_it(box: Sandbox, operation: str) -> None:
    """A configuration that can't be read refuses what can be refused, and changes nothing: it says of no state."""
    box.conf.write_text("[paths]\nstate_dri = /run/x\n")
    with box.unchanged():
        ran = box.hook(GUEST, operation, guest_xml())
    if operation in FATAL:
        ran.refused("state_dri", "state_dir")
    elif operation in NOTHING:
        ran.fine()
    else:
        ran.excused("state_dri", "state_dir")


@pytest.mark.parametrize("operation", INSTALLING)
def test_a_refused_update_leaves_the_old_rules_in_force(box: Sandbox, operation: str) -> None:
    """A guest that is installed keeps its rules and record when a second start or an attach is refused."""
    box.running()
    with box.unchanged():
        box.hook(GUEST, operation, MISSING_FILTER).refused("no-such-filter")


def test_a_second_start_changes_nothing(box: Sandbox) -> None:
    """The same start again leaves the same listing and the same record."""
    xml = box.running()
    before, record = box.kernel(), box.record()
    box.hook(GUEST, "start", xml).fine()
    assert box.kernel() == before
    again = box.record()
    assert again["bindings"] == record["bindings"]


def test_a_start_with_another_filter_replaces_the_first(box: Sandbox) -> None:
    """After a start with another filter the kernel holds what that filter alone would make."""
    box.running(filter_name="no-mac-spoofing")
    alone = box.kernel()
    box.stop()
    box.start(filter_name=FILTER)
    box.start(filter_name="no-mac-spoofing")
    assert box.kernel() == alone


def test_other_tables_are_none_of_our_business(box: Sandbox) -> None:
    """Start, reconnect and stop leave a foreign table as it is, whatever its chains are called."""
    chain = f"from/{TAP}"
    box.nft_script(
        "add table bridge other\nadd table inet nwfilter\n"
        f"add chain inet nwfilter {chain}\nadd rule inet nwfilter {chain} accept\n"
    )
    before = box.nft("list", "table", "inet", "nwfilter")
    box.start()
    box.hook(GUEST, "reconnect", guest_xml()).fine()
    box.stop()
    assert box.nft("list", "table", "inet", "nwfilter") == before
    assert "other" in box.nft("list", "tables")


@pytest.mark.parametrize("arguments", [(), (GUEST,)])
def test_too_few_arguments_are_wrong_usage(box: Sandbox, arguments: tuple[str, ...]) -> None:
    """Called by hand without its arguments, the hook says how to call it and does nothing."""
    with box.unchanged():
        ran = subprocess.run(
            [HOOK, *arguments], input=b"", capture_output=True, env=box.environment(), cwd="/", check=False
        )
    assert ran.returncode not in (0, None)
    assert ran.stdout == b""
    assert ran.stderr.count(b"\n") == 1
    assert b"GUEST OPERATION" in ran.stderr


def test_two_arguments_are_enough_for_a_person(box: Sandbox) -> None:
    """Sub-operation and extra may be left out: they decide nothing."""
    with box.inside():
        ran = subprocess.run(
            [HOOK, GUEST, "start"],
            input=guest_xml().encode(),
            capture_output=True,
            env=box.environment(),
            cwd="/",
            check=False,
        )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert box.in_force()


# --- what libvirt really sent -----------------------------------------------------------------------------------------

EVENTS = sorted(path.name for path in HOOK_EVENTS.glob("*.xml"))
WEB = "web-01"


def test_every_recorded_event_stands_on_its_own(box: Sandbox) -> None:
    """Any recorded event may come first, or twice: status 0, and the guest's end leaves nothing."""
    box.plug("tap-eth0")
    for name in EVENTS:
        operation = name.split(".")[3]
        for _ in range(2):
            ran = box.hook(WEB, operation, (HOOK_EVENTS / name).read_bytes(), command=(*OWN_SYSFS, HOOK))
            assert ran.status == 0, name
        end = (HOOK_EVENTS / EVENTS[-1]).read_bytes()
        box.hook(WEB, "release", end).fine()
        assert set(box.by_tap()) == {BYSTANDER_TAP}, name


# --- nothing to do ----------------------------------------------------------------------------------------------------

ON_THE_FAST_PATH = {"pyexpat", "click", "rich", "libvirt", "json", "dataclasses", "subprocess", "re", "enum"}

LIST_MODULES = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from nwfilter_hook.hook import main
status = main(sys.argv)
sys.stderr.write(" ".join(sys.modules))
sys.exit(status)
"""


def loaded(box: Sandbox, operation: str, xml: str) -> set[str]:
    """The modules that a hook has imported when it ends."""
    command = ("/usr/bin/python3", "-IS", "-c", LIST_MODULES, REPOSITORY)
    with box.inside():
        ran = subprocess.run(
            [*command, GUEST, operation, "begin", "-"],
            input=xml,
            text=True,
            capture_output=True,
            env=box.environment(),
            cwd="/",
            check=True,
        )
    assert ran.stdout == ""
    return set(ran.stderr.split())


@pytest.mark.parametrize("operation", EVERY)
def test_nothing_to_do_imports_nothing_heavy(box: Sandbox, operation: str) -> None:
    """A guest without reference and record costs a Python process, and no parser."""
    assert loaded(box, operation, guest_xml(filter_name=None)) & ON_THE_FAST_PATH == set()


@pytest.mark.parametrize("operation", ["started", *REMOVING])
def test_nothing_to_do_with_a_reference_imports_nothing_heavy(box: Sandbox, operation: str) -> None:
    """started has nothing to do, and removing hasn't without a record, whatever the XML says."""
    assert loaded(box, operation, guest_xml()) & ON_THE_FAST_PATH == set()


@pytest.mark.parametrize("operation", ["start", "prepare", "reconnect"])
def test_a_reference_needs_the_parser(box: Sandbox, operation: str) -> None:
    """The twin: with a reference to act on it is there, of the standard library; nothing else is needed."""
    modules = loaded(box, operation, guest_xml())
    assert "pyexpat" in modules
    assert modules & {"libvirt", "click", "rich", "lxml", "site"} == set()


# --- how it is called -------------------------------------------------------------------------------------------------


def test_it_works_through_a_link(box: Sandbox) -> None:
    """/etc/libvirt/hooks/qemu may be a link into a checkout."""
    link = box.directory / "qemu"
    link.symlink_to(HOOK)
    box.hook(GUEST, "start", guest_xml(), command=(link,)).fine()
    assert box.in_force()


def test_the_environment_decides_nothing_but_the_configuration(box: Sandbox) -> None:
    """No PYTHON variable and no file in the working directory gets code into the hook."""
    trap = box.directory / "trap"
    trap.mkdir()
    for name in ("os.py", "sys.py", "site.py", "sitecustomize.py", "json.py", "syslog.py", "lxml.py"):
        (trap / name).write_text("raise SystemExit(99)\n")
    environment = {**box.environment(), "PYTHONPATH": str(trap), "PYTHONSTARTUP": str(trap / "os.py")}
    with box.inside():
        ran = subprocess.run(
            [HOOK, GUEST, "start", "begin", "-"],
            input=guest_xml().encode(),
            capture_output=True,
            env={**environment, "PYTHONHOME": str(trap), "PYTHONINSPECT": "1"},
            cwd=trap,
            check=False,
        )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert box.in_force()


def test_it_needs_no_environment_at_all(box: Sandbox) -> None:
    """Without PATH nft is found all the same; without HOME and locale nothing is missing."""
    with box.inside():
        ran = subprocess.run(
            [HOOK, GUEST, "start", "begin", "-"],
            input=guest_xml().encode(),
            capture_output=True,
            env={"NWFILTER_HOOK_CONF": str(box.conf)},
            cwd="/",
            check=False,
        )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert box.in_force()


@pytest.mark.parametrize("closed", ["1", "2", "1,2"])
def test_closed_descriptors_do_no_harm(box: Sandbox, closed: str) -> None:
    """A hook without stdout or stderr does its work, and no message ends up in a file or on stdout."""
    closing = " ".join(f"{number}>&-" for number in closed.split(","))
    command = ["sh", "-c", f'exec "$@" {closing}', "sh", str(HOOK), GUEST]
    for operation, xml, status in (("start", MISSING_FILTER, 1), ("start", guest_xml(), 0)):
        with box.inside():
            ran = subprocess.run(
                [*command, operation, "begin", "-"],
                input=xml.encode(),
                capture_output=True,
                env=box.environment(),
                cwd="/",
                check=False,
            )
        assert ran.returncode == status
        assert ran.stdout == b""
    assert box.in_force()
    box.check_bystander()


@pytest.mark.parametrize("operation", ["reconnect", "stopped"])
@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full", "2>&1 >/dev/null | :"])
def test_a_message_that_goes_nowhere_is_no_failure(box: Sandbox, operation: str, stderr: str) -> None:
    """Where a failure must not reach libvirt, one to write the message doesn't either."""
    box.running()
    command = ("bash", "-c", f'set -o pipefail; "$@" {stderr}', "bash", HOOK)
    with box.inside():
        ran = subprocess.run(
            [*command, GUEST, operation, "begin", "-"],
            input=NOT_XML.encode(),
            capture_output=True,
            env=box.environment(),
            cwd="/",
            check=False,
        )
    assert (ran.returncode, ran.stdout) == (0, b"")
    assert box.in_force() == (operation == "reconnect")


@pytest.mark.parametrize("operation", ["start", "reconnect", "stopped", "started"])
@pytest.mark.parametrize("stdin", ["closed", "/dev/null"])
def test_a_useless_stdin_ends_well(box: Sandbox, operation: str, stdin: str) -> None:
    """Without a domain XML on stdin, start refuses and the others go on; no traceback."""
    redirection = "<&-" if stdin == "closed" else "</dev/null"
    command = ("sh", "-c", f'exec "$@" {redirection}', "sh", HOOK)
    with box.unchanged():
        ran = box.hook(GUEST, operation, "", command=command)
    if operation == "start":
        ran.refused(GUEST)
    else:
        assert ran.status == 0


def test_it_works_installed(box: Sandbox, tmp_path: Path) -> None:
    """A copy of the hook with the package beside its directory works, stock filters and all."""
    for name in ("hooks", "nwfilter_hook", "filters"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert ENVIRONMENT["LC_ALL"] == "C"
    box.hook(GUEST, "start", guest_xml(), command=(tmp_path / "hooks" / "qemu",)).fine()
    assert box.in_force()
    assert box.in_force(BYSTANDER_TAP)
