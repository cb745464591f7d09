"""Files that others than root may write, or put something else into the place of, are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nwfilter_hook.trust import distrust

PROGRAM = Path(__file__).parents[2] / "nwfilter_hook"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a file in it, and this process root's, whoever runs it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    directory = tmp_path / "above" / "filters"
    directory.mkdir(parents=True)
    for path in (tmp_path, directory.parent, directory):
        path.chmod(0o755)
    path = directory / "f.xml"
    path.write_text("x")
    path.chmod(0o644)
    return directory


def test_the_usual_case(place: Path) -> None:
    """Nothing is said of what only the owner may write, nor of what isn't there."""
    assert distrust(str(place / "f.xml")) is None
    assert distrust(str(place)) is None
    assert distrust(str(place / "none" / "f.xml")) is None
    assert distrust("/") is None


@pytest.mark.parametrize("where", ["file", "directory", "above"])
@pytest.mark.parametrize("mode", [0o002, 0o1002])
def test_everybody_may_write(place: Path, where: str, mode: int) -> None:
    """The file, its directory, or one above; a sticky one above is fine, since nobody replaces what is in it."""
    path = {"file": place / "f.xml", "directory": place, "above": place.parent}[where]
    path.chmod(path.stat().st_mode | mode)
    sticky = mode != 0o002
    shown = f"{path} may be written by everybody (mode {path.stat().st_mode & 0o7777:04o}); chmod o-w {path}"
    assert distrust(str(place / "f.xml")) == (None if sticky and where != "file" else shown)
    # new names in a directory of filters are new filters
    assert distrust(str(place)) == (None if where == "file" or (sticky and where == "above") else shown)


def test_a_link_leads_to_where_others_may_write(place: Path, tmp_path: Path) -> None:
    """A link counts as what is behind it, link by link, and directory by directory."""
    open_directory = tmp_path / "open"
    open_directory.mkdir()
    (open_directory / "f.xml").write_text("x")
    (open_directory / "back.xml").symlink_to(place / "f.xml")
    for name, target in (("direct", "open/f.xml"), ("back", "open/back.xml"), ("up", "filters/../../open/f.xml")):
        link = place.parent / f"{name}.xml"
        link.symlink_to(tmp_path / target if name != "up" else target)
        assert distrust(str(link)) is None
    open_directory.chmod(0o777)
    for name in ("direct", "back", "up"):
        assert distrust(str(place.parent / f"{name}.xml")) == (
            f"{open_directory} may be written by everybody (mode 0777); chmod o-w {open_directory}"
        )


def test_a_circle_of_links_ends(place: Path) -> None:
    """Whoever reads it finds out."""
    (place / "circle").symlink_to("circle")
    assert distrust(str(place / "circle" / "f.xml")) is None


def test_a_group_may_write(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any group but root's, unless that may write our program as well."""
    (place / "f.xml").chmod(0o664)
    real = os.lstat
    gid = os.stat(PROGRAM).st_gid + 1000

    def of_group(path: str) -> os.stat_result:
        status = list(real(path))
        status[5] = gid if str(path).endswith("f.xml") else status[5]
        return os.stat_result(status)

    monkeypatch.setattr(os, "lstat", of_group)
    path = place / "f.xml"
    assert distrust(str(path)) == f"{path} may be written by group {gid} (mode 0664); chmod g-w {path}"
    path.chmod(0o644)
    assert distrust(str(path)) is None


def test_somebody_elses(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, or a link, that belongs to another user than root or the owner of our program."""
    real = os.lstat
    uid = os.stat(PROGRAM).st_uid + 1000

    def of_user(path: str) -> os.stat_result:
        status = list(real(path))
        status[4] = uid if str(path).endswith(name) else status[4]
        return os.stat_result(status)

    (place / "link.xml").symlink_to("f.xml")
    monkeypatch.setattr(os, "lstat", of_user)
    for name in ("f.xml", "above"):
        shown = place / name if name == "f.xml" else place.parent
        assert distrust(str(place / "f.xml")) == f"{shown} belongs to user {uid}; chown -h root {shown}"
    name = "link.xml"
    assert distrust(str(place / "f.xml")) is None
    assert distrust(str(place / name)) == f"{place / name} belongs to user {uid}; chown -h root {place / name}"


def test_others_than_root_are_told_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that can put nothing into force needn't care."""
    place.chmod(0o777)
    assert distrust(str(place)) is not None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert distrust(str(place)) is None
