"""`edit`: the person's editor, and that nothing of what was written is ever lost."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.frames import udp
from tests.support.host import Ran, Sandbox, drop_udp, filter_xml

UUID = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies to be edited lie; a copy of a definition that came into force isn't left there."""
    directory = tmp_path / "editing"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    monkeypatch.delenv("VISUAL", raising=False)
    return directory


@pytest.fixture
def shelf(library: Sandbox) -> Sandbox:
    """A host with the local filter `mine`."""
    library.define(filter_xml("mine", "<!-- why -->", drop_udp(9), uuid=UUID)).fine()
    return library


def edit(site: Sandbox, script: str, *arguments: str, answers: str | None = None, name: str = "mine") -> Ran:
    """
    `edit mine` with a shell script for an editor: $1 is the copy, $N the how-manieth time it is called.

    Args:
        answers: what the person types; None if there is nobody.
    """
    editor = site.directory / "editor"
    count = site.directory / "count"
    editor.write_text(
        f"#!/bin/sh -e\necho x >> {count}; N=$(wc -l < {count})\n"
        f"FILTERS={site.filters}; HERE={site.directory}\n{script}\n"
    )
    editor.chmod(0o755)
    os.environ["EDITOR"] = f"'{editor}'"
    return site.cli("edit", name, *arguments, stdin=answers or "", terminal=answers is not None)


def kept(ran: Ran) -> Path:
    """The file in which the text is kept, as the last line of stderr says."""
    assert ran.status == 1
    match = re.search(r"your text is kept in (\S+)$", ran.err.splitlines()[-1])
    assert match, ran
    return Path(match[1])


def test_what_is_edited_is_the_normal_form(shelf: Sandbox, workplace: Path) -> None:
    """The editor gets the normal form with its comments, under the filter's own name."""
    ran = edit(shelf, 'cp "$1" "$HERE/seen"; echo "$1" > "$HERE/name"')
    assert ran.fine().out == "filter mine not changed\n"
    assert (shelf.directory / "seen").read_text() == shelf.cli("dumpxml", "mine").out
    assert (shelf.directory / "name").read_text().strip().endswith("/mine.xml")
    assert list(workplace.iterdir()) == []


def test_an_edited_filter_is_defined(shelf: Sandbox, workplace: Path) -> None:
    """Saved, and what the editor leaves beside the copy goes with it."""
    ran = edit(shelf, 'cp "$1" "$1~"; sed -i "s/\'9\'/\'10\'/" "$1"; touch "$(dirname $1)/.mine.swp"').fine()
    assert ran.out == "filter mine edited; 0 taps changed\n"
    assert "dstportstart='10'" in shelf.cli("dumpxml", "mine").out
    assert list(workplace.iterdir()) == []


def test_by_uuid(shelf: Sandbox) -> None:
    """Like every command."""
    assert edit(shelf, 'sed -i "s/why/because/" "$1"', name=UUID).fine().out.startswith("filter mine edited")


def test_a_dry_run(shelf: Sandbox) -> None:
    """Says what would be, keeps the text, changes nothing."""
    with shelf.unchanged():
        ran = edit(shelf, 'sed -i "s/why/because/" "$1"', "--dry-run").fine()
    (path,) = re.findall(r"kept in (\S+)", ran.out)
    assert "because" in Path(path).read_text()


def test_a_stock_filter_becomes_local(library: Sandbox) -> None:
    """The stock file stays as it is; the edited one hides it."""
    assert edit(library, 'sed -i "s/drop/accept/" "$1"', name="no-mac-spoofing").status == 0
    assert library.names(origin="local", shadows=True) == ["no-mac-spoofing"]


@pytest.mark.parametrize("answers", [None, "n\n", ""], ids=["nobody", "no", "end of input"])
def test_an_error_is_shown_with_its_line_and_the_text_is_kept(shelf: Sandbox, answers: str | None) -> None:
    """Nothing is defined, nothing is lost."""
    with shelf.unchanged():
        ran = edit(shelf, "sed -i \"s/'drop'/'dorp'/\" \"$1\"", answers=answers)
    assert "mine.xml:4: action 'dorp'" in ran.err
    assert "did you mean 'drop'?" in ran.err
    assert "action='dorp'" in kept(ran).read_text()
    assert "<!-- why -->" in kept(ran).read_text()


def test_another_try_begins_with_what_was_written(shelf: Sandbox, workplace: Path) -> None:
    """The editor is started again on the same text, and the second try may be right."""
    ran = edit(
        shelf, 'if [ $N = 1 ]; then sed -i s/drop/dorp/ "$1"; else sed -i s/dorp/accept/ "$1"; fi', answers="y\n"
    )
    assert ran.status == 0
    assert "Edit it again?" in ran.out
    assert "action='accept'" in shelf.cli("dumpxml", "mine").out
    assert list(workplace.iterdir()) == []


def test_giving_up_by_restoring_the_text(shelf: Sandbox, workplace: Path) -> None:
    """Whoever takes all back has changed nothing."""
    with shelf.unchanged():
        ran = edit(
            shelf, 'if [ $N = 1 ]; then sed -i s/drop/dorp/ "$1"; else sed -i s/dorp/drop/ "$1"; fi', answers="y\n"
        )
    assert ran.status == 0
    assert ran.out.endswith("filter mine not changed\n")
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "word"),
    [
        (
            'cp "$FILTERS/mine.xml" "$HERE/x"; sed -i s/why/theirs/ "$HERE/x"; mv "$HERE/x" "$FILTERS/mine.xml"',
            "theirs",
        ),
        ('rm "$FILTERS/mine.xml"', ""),
        ('echo >> "$FILTERS/mine.xml"', "why"),
    ],
    ids=["replaced", "removed", "appended to"],
)
def test_somebody_else_changes_the_file_meanwhile(shelf: Sandbox, script: str, word: str) -> None:
    """Theirs stays, mine is kept, and the person is told; a second try after a look is meant."""
    ran = edit(shelf, f'{script}\nsed -i s/why/mine/ "$1"')
    assert f"{shelf.filters}/mine.xml was changed by someone else" in ran.err
    assert "<!-- mine -->" in kept(ran).read_text()
    theirs = shelf.filters / "mine.xml"
    assert theirs.exists() is bool(word)
    assert not word or f"<!-- {word} -->" in theirs.read_text()


def test_somebody_else_defines_it_meanwhile_and_i_insist(shelf: Sandbox) -> None:
    """Edited again after the warning, the text is taken."""
    theirs = 'sed s/why/theirs/ "$1" > "$FILTERS/mine.xml"; sed -i s/why/mine/ "$1"'
    ran = edit(shelf, f"if [ $N = 1 ]; then {theirs}; fi", answers="y\n")
    assert ran.status == 0
    assert "was changed by someone else" in ran.err
    assert "<!-- mine -->" in shelf.cli("dumpxml", "mine").out


def test_somebody_else_hides_the_stock_filter_meanwhile(library: Sandbox) -> None:
    """A local definition that came while the stock one was edited isn't overwritten."""
    local = filter_xml("allow-arp", "<!-- theirs -->")
    script = f'mkdir "$FILTERS"; cat > "$FILTERS/allow-arp.xml" <<"END"\n{local}END\nsed -i s/accept/drop/ "$1"'
    ran = edit(library, script, name="allow-arp")
    assert "allow-arp.xml was changed by someone else" in ran.err
    assert "action='drop'" in kept(ran).read_text()
    assert (library.filters / "allow-arp.xml").read_text() == local


@pytest.mark.parametrize("editor", ["/no/such/editor", "false", "sh -c 'kill -9 $$'"])
def test_an_editor_that_fails(shelf: Sandbox, editor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is defined, the text is kept."""
    monkeypatch.setenv("EDITOR", "false")
    monkeypatch.setenv("VISUAL", editor)
    with shelf.unchanged():
        ran = shelf.cli("edit", "mine")
    assert f"{editor}: Editing failed" in ran.err
    assert kept(ran).exists()


def test_an_editor_that_fails_after_saving(shelf: Sandbox) -> None:
    """What it saved is kept too."""
    ran = edit(shelf, 'sed -i s/why/saved/ "$1"; exit 3')
    assert "<!-- saved -->" in kept(ran).read_text()


def test_an_editor_that_removes_the_file(shelf: Sandbox) -> None:
    """One line, no traceback."""
    with shelf.unchanged():
        ran = edit(shelf, 'rm "$1"')
    assert ran.status == 1
    assert "can't be read" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("<filter name='mine'", "not well-formed"),
        ("<filter name='yours'><uuid>" + UUID + "</uuid></filter>", "'mine' has the uuid"),
        ("<filter name='mine'><uuid>" + UUID.replace("1", "2") + "</uuid></filter>", UUID),
        ("<filter name='mine'><filterref filter='mine'/></filter>", "mine -> mine"),
    ],
)
def test_edits_that_are_refused(shelf: Sandbox, text: str, words: str) -> None:
    """By the rules of define."""
    with shelf.unchanged():
        ran = edit(shelf, f'printf %s "{text}" > "$1"')
    assert words in ran.err
    assert kept(ran).read_text() == text


def test_a_broken_file_can_be_mended(library: Sandbox) -> None:
    """A file that is no filter is edited as it is, with its error shown first."""
    library.place("mine", "<filter name='mine'>\n<rule action='dorp' direction='in'/></filter>")
    ran = edit(library, 'sed -i s/dorp/drop/ "$1"')
    assert ran.status == 0
    assert "mine.xml:2: action 'dorp'" in ran.err
    assert library.names(origin="local", problem=None) == ["mine"]


def test_nothing_to_edit(library: Sandbox, workplace: Path) -> None:
    """An unknown name starts no editor."""
    os.environ["EDITOR"] = "/no/such/editor"
    library.cli("edit", "mine").refused("'mine'")
    assert list(workplace.iterdir()) == []


@pytest.mark.netns
def test_an_edit_is_live(site: Sandbox) -> None:
    """Saved is in force; refused by a guest that uses it is kept."""
    wire = site.wire
    assert wire
    site.define(filter_xml("mine", drop_udp(9))).fine()
    site.start("web", "vnet0", "mine")
    assert not wire.passes(udp(dport=9))
    ran = edit(site, "sed -i \"s/'9'/'10'/\" \"$1\"").fine()
    assert ran.out == "changed: web vnet0\nfilter mine edited; 1 tap changed\n"
    assert wire.passes(udp(dport=9))
    assert not wire.passes(udp(dport=10))
    with site.unchanged():
        ran = edit(site, "sed -i \"s/'10'/'\\$PORT'/\" \"$1\"")
    for word in ("guest web", "tap vnet0", "filter 'mine'", "$PORT", f"{kept(ran)}:4"):
        assert word in ran.err
    site.check()
