"""What the manual says that rules compile to, they compile to; the README is short, and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nwfilter_hook.filters.protocols import ELEMENTS
from nwfilter_hook.nftables.expressions import render_rule
from nwfilter_hook.ruleset.model import Ruleset, Stage
from tests.unit.compiling import compiled_rule, stands_beside
from tests.unit.test_layers import FLOORS

ROOT = Path(__file__).parents[2]
FILTERS = (ROOT / "packaging/man/nwfilter-filter.7.rst").read_text()
TCP = "ether type ip ip protocol 6 @th,0,24 >= 0x0"

COMPILED = FILTERS.split("\nWhat rules compile to\n")[1].split("\nSee also\n")[0]
CONDITIONS = re.findall(r"(?m)^`(<.*>)`\n((?:    .*\n)+)", COMPILED)
PLACES = re.findall(r"(?m)^(`[a-z]+` .*) `(<.*>)`\n    \| `from-l3`: (.*)\n    \| `to-l3`: (.*)\n", COMPILED)


def statements(ruleset: Ruleset, tree: Stage) -> list[str]:
    """The rules of the tree as the manual prints them."""
    return [
        statement.partition(" comment ")[0]
        for chain in ruleset.chains
        if chain.stage is tree
        for rule in chain.rules
        if not stands_beside(rule)
        for statement in render_rule(ruleset, tree, rule, "none")
    ]


@pytest.mark.parametrize(("element", "conditions"), CONDITIONS)
def test_conditions(element: str, conditions: str) -> None:
    """An element of the first list has the conditions below it."""
    ruleset = compiled_rule(element, statematch="false")
    found = statements(ruleset, Stage.FROM_L2) or statements(ruleset, Stage.FROM_L3)
    assert " *or* ".join(f"`{each.removesuffix(' drop')}`" for each in found) == " ".join(conditions.split())


def test_every_element_is_in_the_list() -> None:
    """Whatever the language has."""
    assert {element[1:].rstrip("/>").split()[0] for element, _ in CONDITIONS} == set(ELEMENTS)


@pytest.mark.parametrize(("rule", "element", "sent", "received"), PLACES)
def test_places(rule: str, element: str, sent: str, received: str) -> None:
    """A rule of the second list becomes what is below it, in the two trees of layer 3."""
    action, direction, *others = re.findall(r"`([^`]*)`", rule)
    options = dict(re.findall(r"(\w+)='(\w+)'", " ".join(others)))
    ruleset = compiled_rule(element, action=action, direction=direction, **options)
    for tree, expected in ((Stage.FROM_L3, sent), (Stage.TO_L3, received)):
        found = " or ".join(f"`{each}`" for each in statements(ruleset, tree))
        assert (found.replace(TCP, "…") or "nothing") == expected


def test_the_lists_are_found() -> None:
    """The form of the manual is the one that this file reads."""
    assert len(CONDITIONS) > 30
    assert len(PLACES) > 10


def test_the_readme_is_short() -> None:
    """What, two commands, install, give a guest a filter, what happens when; all else is in the manual."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert [line.split()[:2] for line in lines if line.startswith("    make ")][:2] == [
        ["make", "demo"],
        ["make", "test"],
    ]


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """To a file of ours."""
    for target in re.findall(r"\]\(([^):#]+)\)", path.read_text()):
        assert (ROOT / target).exists(), target


def test_the_floors() -> None:
    """CONTRIBUTING.md has those of the layer test, and files that there are."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [re.findall(r"`(\w+)(?:\.py)?`", row) for row in re.findall(r"(?m)^\| \d \| (.*?) \|", text)]
    assert [set(row) for row in rows] == [rooms for rooms in FLOORS if not any(room.startswith("__") for room in rooms)]
    places = [
        ROOT,
        ROOT / "nwfilter_hook",
        ROOT / "nwfilter_hook/cli",
        ROOT / "nwfilter_hook/operations",
        ROOT / "tests/unit",
    ]
    for name in re.findall(r"`([\w/.-]+(?:\.py|\.csv|\.conf|/))`", text) + re.findall(r"(?<=pytest )tests/\S+", text):
        assert any((place / name).exists() for place in places), name
