"""What every stock filter does, as filters/tests says: worked out, and by the kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nwfilter_hook.cases.read import read_suites
from nwfilter_hook.cli.main import cli
from nwfilter_hook.ruleset.evaluate import Way
from tests.support.netns import REPOSITORY

FILTERS = REPOSITORY / "filters"
TESTS = FILTERS / "tests"
REST = "no-other-l2-traffic"


def test_every_stock_filter_is_tried() -> None:
    """No filter goes without frames that pass and that don't, sent and received, each with the rule that decides."""
    assert {path.stem for path in TESTS.glob("*.yaml")} == {path.stem for path in FILTERS.glob("*.xml")}
    for path in TESTS.glob("*.yaml"):
        (suite,) = read_suites(path.read_text(), str(path))
        assert suite.filters[0] == path.stem
        assert {case.passes for case in suite.cases} == ({False} if path.stem == REST else {True, False}), path
        assert all(case.rule for case in suite.cases), path
        assert {case.way for case in suite.cases} == set(Way), path


@pytest.mark.netns
@pytest.mark.parametrize("how", [(), ("--kernel",)], ids=["evaluator", "kernel"])
def test_stock_filters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: tuple[str, ...]) -> None:
    """Each frame is decided as its case says, by the rule that it names."""
    (tmp_path / "none.conf").touch()
    monkeypatch.setenv("NWFILTER_HOOK_CONF", str(tmp_path / "none.conf"))
    done = CliRunner().invoke(cli, ["test", *how, str(TESTS), "--filters", str(FILTERS), "--json"])
    found = json.loads(done.output)
    assert len(found) > 500
    assert [each for each in found if each["outcome"] != "passed"] == []
