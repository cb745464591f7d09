"""The command `lint`, and what `define` warns of."""

from __future__ import annotations

import pytest

from tests.support.host import Sandbox, filter_xml

TRAP = filter_xml(
    "trap",
    "<rule action='drop' direction='in' priority='100'><ip protocol='udp'/></rule>",
    "<rule action='accept' direction='in' priority='200'><ip protocol='udp' dstportstart='53'/></rule>",
    attributes="chain='ipv4'",
)


def test_a_file(library: Sandbox) -> None:
    """Status 1, code, line, and the rule that wins; as JSON the same; 0 where there is nothing."""
    path = library.place("trap", TRAP)
    ran = library.cli("lint", path)
    assert ran.status == 1
    assert f"{path}:3: NWF101 this accept never decides: {path}:2 (drop in trap)" in ran.out
    (found,) = library.cli("lint", path, "--json").json
    assert sorted(found) == ["code", "filter", "line", "message", "path", "title", "wins"]
    assert (found["code"], found["filter"], found["path"], found["line"]) == ("NWF101", "trap", str(path), 3)
    assert found["wins"] == {"filter": "trap", "path": str(path), "line": 2}
    clean = library.place("clean", TRAP.replace("trap", "clean").replace("'100'", "'300'"))
    ran = library.cli("lint", clean)
    assert (ran.status, ran.out) == (0, "nothing found\n")


def test_names_and_all(library: Sandbox) -> None:
    """A filter of the library by its name; all of them, once each."""
    library.define(TRAP)
    assert library.cli("lint", "trap").status == 1
    assert library.cli("lint", "--all").out.count("NWF101") == 1
    assert library.cli("lint", "clean-traffic").status in (0, 2)


def test_given_parameters(library: Sandbox) -> None:
    """As an interface would give them."""
    rule = "<rule action='drop' direction='out'><ip match='no' srcipaddr='$PEERS'/></rule>"
    path = library.place("f", filter_xml("f", rule, attributes="chain='ipv4'"))
    assert library.cli("lint", path).status == 0
    ran = library.cli("lint", path, "-p", "PEERS=10.0.0.1", "-p", "PEERS=10.0.0.2")
    assert (ran.status, "NWF121" in ran.out) == (1, True)


def test_what_can_not_be_judged(library: Sandbox) -> None:
    """Status 2 with every fault on stderr; the other filters are judged."""
    wrong = library.place("wrong", "<filter name='wrong'><rule action='dorp' direction='sideways'/></filter>")
    path = library.place("trap", TRAP)
    ran = library.cli("lint", wrong, path, "nowhere")
    assert ran.status == 2
    assert "NWF101" in ran.out
    for words in ("'dorp'", "'sideways'", "no filter has the name 'nowhere'"):
        assert words in ran.err
    assert library.cli("lint", library.directory / "none.xml").status == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give filters"),
        (("x", "--all"), "give filters"),
        (("--explain", "NWF999"), "no code 'NWF999'"),
        (("--explain", "NWF101", "x"), "takes a code"),
        (("x", "-p", "IP"), "NAME=VALUE"),
    ],
)
def test_wrong_usage(library: Sandbox, arguments: tuple[str, ...], words: str) -> None:
    """Status 2."""
    ran = library.cli("lint", *arguments)
    assert (ran.status, words in ran.err) == (2, True)


def test_explain(library: Sandbox) -> None:
    """A paragraph for a code, whatever its case; all of them, a line each."""
    assert library.cli("lint", "--explain", "nwf101").out.startswith("NWF101: a rule that never decides")
    listed = library.cli("lint", "--explain", "all").out.splitlines()
    assert len(listed) >= 24
    assert all(line.startswith("NWF1") for line in listed)


def test_define_warns(library: Sandbox) -> None:
    """On stderr, in a dry run, too, and in the JSON; the filter is defined anyhow."""
    assert "warning: " in library.define(TRAP, "--dry-run").err
    ran = library.define(TRAP)
    assert (ran.status, "NWF101" in ran.err) == (0, True)
    assert "NWF" not in library.define(TRAP.replace("'100'", "'300'")).err
