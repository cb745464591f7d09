"""
nwfilter-hook lint: what is probably not meant in filters.
"""

from __future__ import annotations

import json
import sys

import click

from ..base.dataclass import replace
from ..base.errors import NwfilterHookError
from ..base.text import did_you_mean, one_line
from ..lint.findings import Finding
from ..lint.lint import all_checks
from ..operations.lint import lint_all, lint_target
from ..storage.library import Library
from .common import json_option, open_cli_host, print_error
from .options import filters_option, parameter_option


@click.command()
@click.argument("targets", nargs=-1, metavar="FILE|NAME…")
@click.option("--all", "every", is_flag=True, help="Every filter of the library.")
@parameter_option
@filters_option
@click.option("--explain", metavar="CODE", help="What a code means, and what to do; 'all' lists them.")
@json_option
def lint(
    targets: tuple[str, ...],
    every: bool,
    parameters: dict[str, tuple[str, ...]],
    filters: tuple[str, ...],
    explain: str | None,
    as_json: bool,
) -> None:
    """
    Say what is probably not meant in filters: rules that never decide, ways past a guard, and more.

    Judged is what a filter compiles to, with all that it refers to. Exit status: 0 nothing found, 1 something found,
    2 something can't be judged.
    """
    if explain is not None:
        _explain(explain, targets, every)
        return
    if bool(targets) is every:
        raise click.UsageError("give filters (FILE or NAME), or --all")
    host = open_cli_host(readonly=True)
    host = replace(host, library=Library((*filters, *host.config.filter_dirs), trusting=True))
    found: dict[Finding, None] = {}
    wrong: list[NwfilterHookError] = []
    if every:
        findings, wrong = lint_all(host, parameters)
        found.update(dict.fromkeys(findings))
    for target in targets:
        try:
            found.update(dict.fromkeys(lint_target(host, target, parameters)))
        except NwfilterHookError as error:
            wrong.append(error)
    for each_error in wrong:
        print_error(each_error)
    if as_json:
        click.echo(json.dumps([_as_json(each) for each in found], indent=2))
    else:
        for each in found:
            click.echo(one_line(each.line))
        if not found and not wrong:
            click.echo("nothing found")
    sys.exit(2 if wrong else 1 if found else 0)


def _explain(code: str, targets: tuple[str, ...], every: bool) -> None:
    if targets or every:
        raise click.UsageError("--explain takes a code, and no filters")
    checks = all_checks()
    if code.lower() == "all":
        for each in checks.values():
            click.echo(f"{each.code} {each.title}")
        return
    check = checks.get(code.upper())
    if check is None:
        raise click.UsageError(f"no code {one_line(code)!r}{did_you_mean(code, checks)}; --explain all lists them")
    click.echo(f"{check.code}: {check.title}\n\n{click.wrap_text(check.text, 100)}")


def _as_json(each: Finding) -> dict[str, object]:
    wins = each.wins and {"filter": each.wins_filter, "path": each.wins.path, "line": each.wins.line}
    return {
        "code": each.code,
        "title": all_checks()[each.code].title,
        "message": each.message,
        "filter": each.filter,
        "path": each.source.path,
        "line": each.source.line,
        "wins": wins,
    }
