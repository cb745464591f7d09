"""What the manual says that rules compile to, they compile to; the README is short, and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nwfilter_hook.filters.protocols import ELEMENTS
from nwfilter_hook.nftables.expressions import render_rule
from nwfilter_hook.ruleset.model import Ruleset, Stage
from tests.unit.compiling import compiled_rule, stands_beside

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "packaging/man").glob("*.md"))
FILTERS = (ROOT / "packaging/man/nwfilter-filter.7.md").read_text()
TCP = "ether type ip ip protocol 6 @th,0,24 >= 0x0"


def tables(heading: str) -> list[list[list[str]]]:
    """The cells of each table under `heading`, without its head."""
    section = FILTERS.split(f"\n# {heading}\n")[1].split("\n# ")[0]
    lines = re.findall(r"(?m)(?:^\|.*\n)+", section)
    return [[[cell.strip() for cell in row.strip("|").split(" | ")] for row in each.splitlines()[2:]] for each in lines]


CONDITIONS, PLACES = tables("What rules compile to")


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


@pytest.mark.parametrize("row", CONDITIONS[:-1], ids=lambda row: row[0])
def test_conditions(row: list[str]) -> None:
    """An element of the first table has the conditions beside it."""
    element, conditions = row
    ruleset = compiled_rule(element.strip("`"), statematch="false")
    found = statements(ruleset, Stage.FROM_L2) or statements(ruleset, Stage.FROM_L3)
    assert " *or* ".join(f"`{each.removesuffix(' drop')}`" for each in found) == conditions


def test_every_element_is_in_the_table() -> None:
    """Whatever the language has."""
    assert {found[1] for row in CONDITIONS for found in [re.match(r"`<([a-z0-9-]+)", row[0])] if found} == set(ELEMENTS)


@pytest.mark.parametrize("row", PLACES, ids=lambda row: row[0] + row[1])
def test_places(row: list[str]) -> None:
    """A rule of the second table becomes what is beside it, in the two trees of layer 3."""
    action, direction, *others = re.findall(r"`([^`]*)`", row[0])
    options = dict(re.findall(r"(\w+)='(\w+)'", " ".join(others)))
    ruleset = compiled_rule(row[1].strip("`"), action=action, direction=direction, **options)
    for tree, expected in ((Stage.FROM_L3, row[2]), (Stage.TO_L3, row[3])):
        found = " or ".join(f"`{each}`" for each in statements(ruleset, tree))
        assert (found.replace(TCP, "…") or "nothing") == expected


def test_the_readme_is_short() -> None:
    """What, two commands, install, give a guest a filter, what happens when; all else is in the manual."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert [line.split()[:2] for line in lines if line.startswith("    make ")][:2] == [
        ["make", "demo"],
        ["make", "test"],
    ]


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """To a file of ours, and there to a headline."""
    for target, anchor in re.findall(r"\]\(([^):#]*)(?:#([^)]*))?\)", path.read_text()):
        found = path.parent / target if target else path
        assert found.exists(), target
        headlines = re.findall(r"(?m)^#+ (.*)$", found.read_text()) if anchor else []
        assert not anchor or anchor in [
            re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headlines
        ]
