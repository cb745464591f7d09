"""What one guest may ask for: refused before its start, with the numbers; and others don't wait for what it takes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nwfilter_hook.operations.bounds import MAX_INTERFACES, MAX_RULES_OF_GUEST, MAX_RULES_OF_TAP
from tests.support.domains import domain, interface
from tests.support.host import GUEST, HOOK, TAP, Sandbox

pytestmark = pytest.mark.hook


def addresses(number: int) -> str:
    """Parameters that give a tap so many addresses."""
    return "".join(f"<parameter name='IP' value='10.0.{each >> 8}.{each & 255}'/>" for each in range(number))


def guest(interfaces: int, number: int) -> str:
    """A guest whose interfaces have so many addresses each."""
    one = interface("TAP", "clean-traffic", mac="52:54:00:00:00:01")
    one = one.replace("</filterref>", f"{addresses(number)}</filterref>")
    return domain(GUEST, [one.replace("TAP", f"vnet{index}") for index in range(interfaces)])


REFUSED = {
    "rules-of-a-guest": (guest(6, 4096), "make 24", f"more than {MAX_RULES_OF_GUEST}; for many addresses"),
    "interfaces": (guest(MAX_INTERFACES + 1, 0), f"{MAX_INTERFACES + 1} interfaces", f"more than {MAX_INTERFACES}"),
}


@pytest.mark.parametrize("operation", ["prepare", "start"])
@pytest.mark.parametrize("name", REFUSED)
def test_too_much_is_refused_with_its_number(box: Sandbox, name: str, operation: str) -> None:
    """Before libvirt makes a device, too."""
    xml, *words = REFUSED[name]
    with box.unchanged():
        box.hook(GUEST, operation, xml).refused(*words)


def test_too_many_rules_for_a_tap(box: Sandbox) -> None:
    """One rule of each of a filter's references, for each of its values."""
    rules = "".join(
        f"<rule action='drop' direction='out'><ip srcipaddr='$A' dscp='{number}'/></rule>" for number in range(3)
    )
    (box.filters / "mine.xml").write_text(f"<filter name='mine'>{rules}</filter>")
    many = addresses(4000).replace("'IP'", "'A'")
    xml = domain(GUEST, [interface(TAP, "mine").replace("</filterref>", f"{many}</filterref>")])
    with box.unchanged():
        box.hook(GUEST, "prepare", xml).refused("'mine' makes more than", str(MAX_RULES_OF_TAP))


def test_what_a_bound_allows_starts(box: Sandbox) -> None:
    """The twin: an address list as long as a rule may have."""
    box.hook(GUEST, "start", guest(1, 4096)).fine()
    assert box.in_force("vnet0")


def test_memory_is_bounded(box: Sandbox) -> None:
    """A hook that wants more ends with one line, and not with the host's memory."""
    program = (
        f"import sys; sys.argv = ['qemu', {GUEST!r}, 'prepare', 'begin', '-'];"
        f"sys.path.insert(0, {str(HOOK.parents[1])!r});"
        "from nwfilter_hook import hook; hook.MAX_MEMORY = 24 << 20; sys.exit(hook.main(sys.argv))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input=guest(1, 4096),
        text=True,
        capture_output=True,
        env={**os.environ, "NWFILTER_HOOK_CONF": str(box.conf)},
        check=False,
    )
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1, ran.stderr[-1500:]
    assert "more than 24 MiB of memory are needed: too many interfaces, rules or values" in ran.stderr
