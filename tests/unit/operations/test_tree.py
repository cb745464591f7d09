"""Trees: what refers to what, the order in which rules decide, and the pictures of them that are in the README."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner

from nwfilter_hook.base.errors import NOWHERE
from nwfilter_hook.cli.main import cli
from nwfilter_hook.config import Config
from nwfilter_hook.filters.model import FilterRule
from nwfilter_hook.filters.resolve import filters_in_tree
from nwfilter_hook.host import Host, open_host
from nwfilter_hook.operations.picture import GREY, ORDER, picture
from nwfilter_hook.operations.tree import Step, Tree, tree_of_filter
from nwfilter_hook.storage.library import Library

ROOT = Path(__file__).parents[3]
EXAMPLES, STOCK = ROOT / "packaging/examples", ROOT / "filters"


@pytest.fixture
def host() -> Host:
    """Asked for its configuration alone."""
    return open_host(Config(), print, readonly=True)


def read(host: Host, name: str, *directories: Path, mac: str | None = None, **parameters: str) -> Tree:
    """A filter's tree."""
    library = Library([*map(str, directories), str(EXAMPLES), str(STOCK)], trusting=True)
    return tree_of_filter(host, name, {key: (value,) for key, value in parameters.items()}, mac, library)


def flat(steps: Sequence[Step], depth: int = 0) -> Iterator[tuple[int, Step]]:
    for each in steps:
        yield depth, each
        yield from flat(each.below, depth + 1)


def lines(tree: Tree, direction: str, layer: int) -> list[str]:
    (place,) = [each for each in tree.places if (each.direction, each.layer) == (direction, layer)]
    return [
        "  " * depth + f"{each.verdict or 'chain'} {each.text}{' (answers)' * each.answers} {each.rule}".rstrip()
        for depth, each in flat(place.steps)
    ]


def test_the_order_in_which_rules_decide(host: Host) -> None:
    """Chains where they are entered, by priority; the answers of an accept on the other side."""
    tree = read(host, "test-eth0", IP="192.0.2.7", mac="52:54:00:00:00:04")
    sends = lines(tree, "from-guest", 2)
    assert sends[:8] == [
        "chain mac",
        "  return mac srcmacaddr=52:54:00:00:00:04 no-mac-spoofing:14",
        "  drop any mac no-mac-spoofing:19",
        "chain ipv4-ip",
        "  return ip srcipaddr=0.0.0.0 protocol=udp no-ip-spoofing:15",
        "  return ip srcipaddr=192.0.2.7 no-ip-spoofing:20",
        "  drop everything no-ip-spoofing:25",
        "accept mac protocolid=ipv4 clean-traffic:22",
    ]
    assert lines(tree, "to-guest", 3) == [
        "accept tcp dstportstart=22 test-eth0:6",
        "accept tcp dstportstart=80 test-eth0:7",
        "accept any icmp (answers) test-eth0:10",
        "drop any all test-eth0:13",
    ]
    assert lines(tree, "from-guest", 3)[0] == "accept tcp dstportstart=22 (answers) test-eth0:6"


def test_references(host: Host) -> None:
    """Each with its chain, its own rules and what this reference gives it; one that comes again isn't spelled out."""
    (top,) = read(host, "test-eth0").references
    (clean,) = top.below
    assert (top.filter, top.rules, clean.filter, clean.chain) == ("test-eth0", 4, "clean-traffic", "root")
    arp = next(each for each in clean.below if each.filter == "no-arp-spoofing")
    assert [(each.filter, each.chain, each.priority) for each in arp.below] == [
        ("no-arp-mac-spoofing", "arp-mac", -520),
        ("no-arp-ip-spoofing", "arp-ip", -510),
    ]


def test_a_filter_that_is_referred_to_twice(host: Host, tmp_path: Path) -> None:
    """With other parameters each time; its inside stands there once."""
    inner = "<filterref filter='clean-traffic'><parameter name='IP' value='{}'/></filterref>"
    references = inner.format("192.0.2.1") + inner.format("192.0.2.2")
    (tmp_path / "two.xml").write_text(f"<filter name='two'>{references}</filter>")
    tree = read(host, "two", tmp_path)
    first, second = tree.references[0].below
    assert (first.parameters, second.parameters) == (("IP=192.0.2.1",), ("IP=192.0.2.2",))
    assert (first.again, second.again, bool(first.below), second.below) == (False, True, True, ())
    written = [line for line in lines(tree, "from-guest", 2) if line.endswith("no-ip-spoofing:20")]
    assert len(written) == 1
    assert "192.0.2.1" in written[0]
    assert "192.0.2.2" in written[0]


def test_what_is_learned(host: Host) -> None:
    """Nobody has given it: the variable stands there, and where addresses are learned."""
    sends = lines(read(host, "clean-traffic"), "from-guest", 2)
    assert sends[0].startswith("learn addresses")
    assert "  return ip srcipaddr=$IP no-ip-spoofing:20" in sends


@pytest.mark.parametrize("name", sorted(path.stem for path in STOCK.glob("*.xml")))
def test_stock_filters(host: Host, name: str) -> None:
    """Each of a filter's rules is in its tree, with nothing given; and each can be drawn."""
    library = Library([str(STOCK)], trusting=True)
    tree = read(host, name)
    shown = {each.rule for place in tree.places for _, each in flat(place.steps)}
    written = {
        f"{path.stem}:{rule.source.line}"
        for path in (STOCK / f"{each}.xml" for each in filters_in_tree(name, library.read))
        for rule in library.read(path.stem, NOWHERE).entries
        if isinstance(rule, FilterRule)
    }
    assert written <= shown
    assert picture(tree).startswith("digraph")


def test_dead_rules(host: Host, tmp_path: Path) -> None:
    """lint's code stands beside a rule that never decides, in the picture in grey, and beside no other."""
    rules = ["<rule action='drop' direction='in'><ip protocol='udp'/></rule>"]
    rules.append("<rule action='accept' direction='in'><udp dstportstart='53'/></rule>")
    rules.append("<rule action='drop' direction='in'><ip protocol='udp' dstportstart='53'/></rule>")
    rules.append("<rule action='accept' direction='in'><tcp dstportstart='53'/></rule>")
    (tmp_path / "traps.xml").write_text("\n".join(["<filter name='traps'>", *rules, "</filter>"]))
    tree = read(host, "traps", tmp_path)
    dead = [each for place in tree.places for _, each in flat(place.steps) if each.dead]
    assert {(each.rule, each.dead) for each in dead} == {("traps:3", "NWF104"), ("traps:4", "NWF101")}
    drawn = picture(tree)
    assert "dead: NWF101" in drawn
    assert drawn.count(f'<FONT COLOR="{GREY}">drop</FONT>') == 1
    clean = read(host, "test-eth0")
    assert not [each for place in clean.places for _, each in flat(place.steps) if each.dead]


def test_names_are_safe(host: Host, tmp_path: Path) -> None:
    """What a filter's author writes is text in the picture, and nothing else."""
    comment = "<all comment='&lt;/FONT&gt;&quot;] x \\ &amp;'/>"
    (tmp_path / "odd.xml").write_text(
        f"<filter name='odd'><rule action='drop' direction='in'>{comment}</rule></filter>"
    )
    drawn = picture(read(host, "odd", tmp_path))
    assert "&lt;/FONT&gt;&quot;] x \\ &amp;" in drawn


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(cli, ["tree", *arguments])
    assert done.exit_code == status, done.output
    return done.output


def test_bad_input(tmp_path: Path) -> None:
    """Names nobody knows, variables without a value, options that exclude each other, a file that can't be written."""
    for arguments, status in (
        (["no-such-filter"], 1),
        (["clean-traffic", "-p", "IP"], 2),
        (["clean-traffic", "--mac", "x"], 2),
        (["clean-traffic", "--svg", "-", "--json"], 2),
        (["clean-traffic", "--svg", str(tmp_path / "no/such/directory.svg")], 1),
        ([], 2),
    ):
        done = CliRunner().invoke(cli, ["tree", *arguments])
        assert done.exit_code == status, (arguments, done.output)


def test_json() -> None:
    """The keys that the manual names, and nothing else."""
    found = json.loads(run("test-eth0", "--filters", str(EXAMPLES), "-p", "IP=192.0.2.7", "--json"))
    text = (ROOT / "packaging/man/nwfilter-hook.8.rst").read_text()
    said = text[text.index("\n`tree ") : text.index("\n`list ")]
    step = found["places"][0]["steps"][0]
    keys = {*found, *found["places"][0], *step}
    assert keys <= set(re.findall(r"`(\w+)`", said))
    assert found["values"] == {"IP": "192.0.2.7"}


def test_without_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    done = CliRunner().invoke(cli, ["tree", "clean-traffic", "--svg", "-"])
    assert (done.exit_code, str(done.exception)) == (1, "Graphviz draws it: install python3-graphviz and graphviz")


# --- what the README shows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clean-traffic", "test-eth0"])
def test_pictures_are_of_today(host: Host, name: str) -> None:
    """`make trees` would draw what is there: all words of the picture, in their order."""
    svg = (ROOT / f"packaging/pictures/{name}.svg").read_text()
    drawn = [unescape(text).replace("\xa0", " ").strip() for text in re.findall(r"<text [^>]*>([^<]*)</text>", svg)]
    tree = read(host, name)
    rules = [each.rule for place in tree.places for _, each in flat(place.steps) if each.rule]
    assert sorted(word for word in drawn if re.fullmatch(r"[\w-]+:\d+", word)) == sorted(rules)
    assert set(ORDER.values()) <= set(drawn)
    verdicts = [each.verdict for place in tree.places for _, each in flat(place.steps) if each.verdict]
    assert sorted(word for word in drawn if word in set(verdicts)) == sorted(verdicts)


def test_the_example_is_the_manuals() -> None:
    """packaging/examples has what nwfilter-hook(8) shows."""
    text = (ROOT / "packaging/man/nwfilter-hook.8.rst").read_text()
    found = re.search(r"(?s)In `test-eth0.xml`::\n\n(.*?)\n\n::", text)
    assert found
    assert (EXAMPLES / "test-eth0.xml").read_text() == textwrap.dedent(found[1]) + "\n"
