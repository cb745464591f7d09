"""What adopt finds: which filters come, which become twins in which order, what is in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nwfilter_hook.config import CONFIG_VARIABLE, parse_config
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.filters.twins import is_twin, twin_of
from nwfilter_hook.host import open_host
from nwfilter_hook.libvirtd import LibvirtGuest
from nwfilter_hook.operations import adopt_survey
from nwfilter_hook.operations.adopt_survey import Survey, survey
from tests.support.domains import domain, interface, uuid_of

STOCK = Path(__file__).parents[3] / "filters"
RULE = "<rule action='drop' direction='out' priority='500'><mac srcmacaddr='$MAC' match='no'/></rule>"


class Libvirt:
    """A libvirt with these filters and guests."""

    def __init__(self, filters: dict[str, str], guests: dict[str, str], *, running: bool = False) -> None:
        self._filters = {name: f"<filter name='{name}' chain='root'>{text}</filter>" for name, text in filters.items()}
        self._guests = [
            LibvirtGuest(uuid_of(name), name, running, domain(name, [interface(f"t{n}", used)]).encode())
            for n, (name, used) in enumerate(guests.items())
        ]

    def guests(self) -> list[LibvirtGuest]:
        return self._guests

    def filters(self) -> dict[str, str]:
        return self._filters

    def filtered_taps(self) -> dict[str, str]:
        return {}


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A survey, on a host of which `local` are the administrator's filters."""
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "conf"))
    for name in ("LIBVIRTS_FILES", "LIBVIRTS_STOCK"):
        monkeypatch.setattr(adopt_survey, name, str(tmp_path / name))
        (tmp_path / name).mkdir()
    local = tmp_path / "filters"
    local.mkdir()

    def look(filters: dict[str, str], guests: dict[str, str], **own: str) -> Survey:
        for name, text in own.items():
            (local / f"{name}.xml").write_text(f"<filter name='{name}'>{text}</filter>")
        config = parse_config(f"[paths]\nfilter_dirs = {local}:{STOCK}\nstate_dir = {tmp_path}/state\n", "c")
        return survey(open_host(config, print, readonly=True), Libvirt(filters, guests))  # type: ignore[arg-type]

    return look


def test_filters_of_others_come_along(look: Any) -> None:
    """oVirt's, OpenStack's, CloudStack's: those that guests lead to, inner ones first; stock names that differ."""
    filters = {
        "vdsm-no-mac-spoofing": "<filterref filter='no-mac-spoofing'/><filterref filter='no-arp-mac-spoofing'/>",
        "nova-instance-1": "<filterref filter='nova-base'/>",
        "nova-base": "<filterref filter='no-mac-spoofing'/><filterref filter='nova-allow'/>",
        "nova-allow": "<rule action='accept' direction='out'><ip protocol='udp' dstportstart='68'/></rule>",
        "i-2-3-VM": RULE,
        "no-mac-spoofing": RULE,
        "no-arp-mac-spoofing": RULE,
        "unused": RULE,
    }
    found = look(filters, {"a": "nova-instance-1", "b": "vdsm-no-mac-spoofing", "c": "i-2-3-VM"})
    assert found.faults == ()
    names = [each.name for each in found.bring]
    assert set(names) >= {"nova-instance-1", "nova-base", "nova-allow", "i-2-3-VM", "no-mac-spoofing"}
    assert names.index("nova-allow") < names.index("nova-base") < names.index("nova-instance-1")
    assert "unused" not in names
    assert found.twins[:3] == ("i-2-3-VM", "nova-instance-1", "vdsm-no-mac-spoofing"), (
        "those that guests refer to, first"
    )
    assert "filter unused isn't used, and stays libvirt's alone" in found.notes


def test_what_is_as_it_is_shipped_does_not_come(look: Any, tmp_path: Path) -> None:
    """libvirt's own of a stock name; the library's own counts, and is told."""
    text = f"<filter name='no-mac-spoofing'>{RULE}</filter>"
    (tmp_path / "LIBVIRTS_STOCK/no-mac-spoofing.xml").write_text(text)
    found = look({"no-mac-spoofing": RULE, "mine": RULE}, {"a": "no-mac-spoofing", "b": "mine"}, mine=RULE * 2)
    assert found.bring == ()
    assert found.twins == ("mine", "no-mac-spoofing")
    assert "filter mine: the library has its own, which says something else than libvirt's; it counts" in found.notes


def test_what_is_in_the_way(look: Any, tmp_path: Path) -> None:
    """A used filter with a fault, or without a value, or that isn't there; of unused ones only a note."""
    wrong = "<rule action='drop' direction='out'><ip dscp='99'/></rule>"
    found = look({"wrong": wrong, "unused": wrong}, {"a": "wrong"})
    assert any("dscp='99'" in fault for fault in found.faults)
    assert any(note.startswith("not read, and used by no guest: libvirt's unused:") for note in found.notes)
    assert any(
        "$NO" in fault
        for fault in look({"x": "<rule action='drop' direction='out'><ip dscp='$NO'/></rule>"}, {"a": "x"}).faults
    )
    assert any("no filter 'gone'" in fault or "gone" in fault for fault in look({}, {"a": "gone"}).faults)
    (tmp_path / "LIBVIRTS_FILES/f.xml").write_text(
        "<filter name='f'><rule action='drop' direction='in'><ip dst='1'/></rule></filter>"
    )
    (tmp_path / "LIBVIRTS_FILES/u.xml").write_text("<filter name='u'><rule what='drop'/></filter>")
    found = look({"f": "<rule action='drop' direction='in' priority='500'><ip/></rule>", "u": ""}, {"a": "f"})
    assert len(found.ignored) == 1
    assert "unknown attribute 'dst' on <ip>" in found.ignored[0]


def test_twins_are_twins() -> None:
    """Name, UUID, chain and priority stay; libvirt wants them so."""
    text = (
        "<filter name='a' chain='arp-x' priority='-7'><uuid>5c6d49af-b071-6127-b4ec-6f8ed4b55335</uuid>"
        + RULE
        + "</filter>"
    )
    before = parse_filter(text.encode(), "a")
    after = parse_filter(twin_of(before).encode(), "a")
    assert is_twin(after)
    assert not is_twin(before)
    assert (after.name, after.uuid, after.chain, after.priority) == (
        before.name,
        before.uuid,
        before.chain,
        before.priority,
    )
