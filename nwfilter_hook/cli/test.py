"""
nwfilter-hook test: do filters do what their tests say?
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import click
from click.core import ParameterSource

from ..base.addresses import format_mac
from ..base.errors import NwfilterHookError, Source
from ..base.text import one_line
from ..cases.model import Outcome
from ..cases.write import format_suite, junit
from ..filters.model import FilterRef
from ..host import Host
from ..network.private import PrivateBridge
from ..operations.cases import Trial, read_files, record
from ..operations.explain import of_filter
from ..ruleset.evaluate import Way
from ..ruleset.model import Attachment
from ..storage.library import Library
from .answers import Question, print_answer
from .common import json_option, open_cli_host, print_error, write_output
from .options import attachment_option, filter_option, filters_option, parameter_option, read_mac

_WIDTH = 80
_NO_ANSWER = 2
_OF_RECORD = {
    "filter": "--filter",
    "mac": "--mac",
    "parameters": "-p",
    "attachment": "--attachment",
    "learned": "--learned",
    "sends": "--from-guest or --to-guest",
}


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH…")
@click.option("--kernel", is_flag=True, help="By the kernel, in a network namespace of its own; needs root.")
@click.option("--junit", "junit_file", metavar="FILE", help="Write the results as JUnit's XML, too.")
@click.option(
    "--record",
    "capture",
    metavar="CAPTURE",
    help="Print a test file: the capture's frames as cases, with today's verdicts.",
)
@filter_option("With --record: the filter.")
@click.option("--mac", callback=read_mac, help="With --record: the guest's MAC address.")
@parameter_option
@attachment_option
@click.option("--learned", multiple=True, metavar="ADDRESS", help="With --record: it has learned this address or MAC.")
@click.option("--from-guest", "sends", flag_value="from", help="With --record: the guest sends all frames.")
@click.option("--to-guest", "sends", flag_value="to", help="With --record: the guest gets all frames.")
@filters_option
@json_option
def test(**options: Any) -> None:
    """
    Try the cases of test files (PATH, or all *.yaml below it): which packets must pass a filter, and which not.

    Exit status: 0 all is as it must be, 1 it isn't, 2 something can't be tried.
    """
    try:
        status = _record(options) if options["capture"] is not None else _run(options)
    except NwfilterHookError as error:
        print_error(error)
        sys.exit(_NO_ANSWER)
    sys.exit(status)


def _run(options: dict[str, Any]) -> int:
    paths = options["paths"]
    if not paths:
        raise click.UsageError("give test files, or directories with some")
    given = click.get_current_context().get_parameter_source
    for key, option in _OF_RECORD.items():
        if given(key) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} goes with --record; a test file says it itself")
    host = open_cli_host(readonly=True)
    directories = (*options["filters"], *host.config.filter_dirs)
    began = time.monotonic()
    suites = list(read_files(paths))
    outcomes: list[Outcome] = []
    trials: dict[int, Trial] = {}
    wrong: list[NwfilterHookError] = []
    bridge = PrivateBridge() if options["kernel"] else None
    dots = _Dots(quiet=options["as_json"])
    try:
        for suite in suites:
            try:
                trial = Trial(host, suite, directories)
                for outcome in trial.evaluate() if bridge is None else trial.try_in(bridge):
                    trials[len(outcomes)] = trial
                    outcomes.append(outcome)
                    dots.add(outcome)
            except NwfilterHookError as error:
                wrong.append(error)
    finally:
        if bridge is not None:
            bridge.close()
        dots.end()
    seconds = time.monotonic() - began
    for each_error in wrong:
        print_error(each_error)
    if options["as_json"]:
        click.echo(json.dumps([_as_json(each) for each in outcomes], indent=2))
    else:
        for number, outcome in enumerate(outcomes):
            if outcome.failed:
                _print_failure(outcome, trials[number])
        _print_end(outcomes, len(wrong), seconds)
    if options["junit_file"] is not None:
        write_output(options["junit_file"], junit(outcomes, list(map(str, wrong)), seconds))
    return _NO_ANSWER if wrong else int(any(each.failed for each in outcomes))


class _Dots:
    """As pytest prints them."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._column = quiet, 0

    def add(self, outcome: Outcome) -> None:
        """One more."""
        if self._quiet:
            return
        click.echo("s" if outcome.untried is not None else "F" if outcome.failed else ".", nl=False)
        self._column += 1
        if self._column == _WIDTH:
            self.end()

    def end(self) -> None:
        """The line."""
        if self._column:
            click.echo()
        self._column = 0


def _print_failure(outcome: Outcome, trial: Trial) -> None:
    name = one_line(outcome.case.name)
    click.echo(
        f"\nFAILED {one_line(str(outcome.case.source))}{f': {name}' if name else ''}\n  {one_line(outcome.wrong)}"
    )
    if outcome.fault is not None:
        return
    frame, context = trial.question(outcome.case)
    click.echo()
    print_answer(trial.subject, Question(frame, outcome.case.way, context, ()), trial.explain(outcome.case))


def _print_end(outcomes: Sequence[Outcome], wrong: int, seconds: float) -> None:
    failed, untried = sum(each.failed for each in outcomes), [each for each in outcomes if each.untried is not None]
    for reason in dict.fromkeys(str(each.untried) for each in untried):
        number = sum(each.untried == reason for each in untried)
        click.echo(f"not tried: {number}, since {one_line(reason)}")
    counts = [f"{failed} failed"] if failed else []
    counts.append(f"{len(outcomes) - failed - len(untried)} passed")
    if untried:
        counts.append(f"{len(untried)} not tried")
    if wrong:
        counts.append(f"{wrong} can't be tried")
    click.echo(f"{', '.join(counts)} in {seconds:.2f} s")


def _as_json(each: Outcome) -> dict[str, Any]:
    case = each.case
    return {
        "name": case.name,
        "path": case.source.path,
        "line": case.source.line,
        "filters": list(each.suite.filters),
        "direction": "from-guest" if case.way is Way.FROM_GUEST else "to-guest",
        "expected": {"verdict": "pass" if case.passes else "drop", "rule": case.rule},
        "verdict": None if each.fault or each.untried else "pass" if each.passes else "drop",
        "rules": list(each.rules),
        "outcome": "untried" if each.untried is not None else "failed" if each.failed else "passed",
        "why": each.untried if each.untried is not None else each.wrong,
    }


# --- record -----------------------------------------------------------------------------------------------------------


def _record(options: dict[str, Any]) -> int:
    if options["paths"] or options["kernel"] or options["junit_file"] or options["as_json"]:
        raise click.UsageError("--record prints a test file, and takes neither PATHs nor --kernel, --junit, --json")
    if options["filter"] is None or options["mac"] is None:
        raise click.UsageError("--record needs --filter and --mac")
    host: Host = open_cli_host(readonly=True)
    library = Library((*options["filters"], *host.config.filter_dirs), trusting=True)
    reference = FilterRef(options["filter"], options["parameters"], Source("--filter", 0))
    attachment = Attachment(options["attachment"])
    subject = of_filter(host, reference, options["mac"], library, attachment=attachment, learned=options["learned"])
    way = {"from": Way.FROM_GUEST, "to": Way.TO_GUEST}.get(options["sends"])
    cases, notes = record(subject, options["capture"], way)
    head: dict[str, Any] = {"filter": options["filter"], "mac": format_mac(subject.guest.mac)}
    if options["parameters"]:
        head["parameters"] = {name: list(values) for name, values in options["parameters"].items()}
    if attachment is not Attachment.BRIDGE_PORT:
        head["attachment"] = attachment.value
    if options["learned"]:
        head["learned"] = list(options["learned"])
    click.echo(format_suite(head, cases), nl=False)
    for note in notes:
        click.echo(one_line(f"nwfilter-hook: note: {note}"), err=True)
    return 0
