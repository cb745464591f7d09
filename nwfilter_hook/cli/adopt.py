"""
nwfilter-hook adopt, unadopt: take over from libvirt's own driver, and give back.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click

from ..base.errors import NwfilterHookError, UpdateError
from ..base.text import one_line
from ..host import Host
from ..libvirtd import LibvirtManager, open_manager
from ..operations.adopt import Step, adopt, unadopt
from ..operations.adopt_survey import Survey, is_twin_xml, survey
from ..operations.hooked import HOOKS, hook_installed
from ..operations.verdicts import differing
from ..storage.adopted import Report, alone
from .common import open_cli_host


@click.command("adopt")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--as-libvirt", is_flag=True, help="Take filters as libvirt reads them.")
@click.option("--direct", metavar="FILTER", default="", help="For interfaces of type direct that nothing filters.")
def adopt_(dry_run: bool, yes: bool, as_libvirt: bool, direct: str) -> None:
    """Take over the guests and filters of libvirt's own nwfilter driver; no guest is without rules meanwhile."""
    host = open_cli_host(readonly=False)
    with _manager(host) as libvirt:
        found = survey(host, libvirt)
        if direct and direct not in {*host.library.names(), *(each.name for each in found.bring)}:
            raise UpdateError(f"--direct: no filter has the name {one_line(direct)!r}")
        _tell(host, found, direct)
        _refuse(found, as_libvirt)
        if dry_run:
            click.echo("dry run, nothing done")
            return
        if not yes:
            click.confirm("Go on?", abort=True)
        with alone(), _progress() as step:
            report = adopt(host, libvirt, found, step, direct=direct)
    guests, twins = len(report.guests), len(report.twins)
    _done(report, f"adopted: {guests} guests under rules of ours, {twins} filters of libvirt are twins")


def _refuse(found: Survey, as_libvirt: bool) -> None:
    """Raises UpdateError: something is in the way."""
    faults = list(found.faults)
    if found.ignored and not as_libvirt:
        faults.append("libvirt ignores what is said above: mend the files and define them, or give --as-libvirt")
    if not hook_installed():
        faults.append(f"{HOOKS[0]} isn't there: install the hook first; don't restart libvirtd yet")
    if faults:
        more = f"{len(faults)} reasons, the last: " if len(faults) > 1 else ""
        raise UpdateError(f"nothing was done: {more}{faults[-1]}")


@click.command("unadopt")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def unadopt_(dry_run: bool, yes: bool) -> None:
    """Give libvirt its filters and guests back; no guest is without rules meanwhile."""
    from ..storage.adopted import originals, read_report

    host = open_cli_host(readonly=False)
    report = read_report()
    if report is None or report.state == "given back":
        raise UpdateError("nothing is adopted here")
    click.echo(f"libvirt gets {len(originals())} filters back; {len(host.state.records())} guests lose our rules")
    if dry_run:
        click.echo("dry run, nothing done")
        return
    if not yes:
        click.confirm("Go on?", abort=True)
    with _manager(host) as libvirt, alone(), _progress() as step:
        report = unadopt(host, libvirt, step)
    _done(report, "given back; remove the hook and restart libvirtd, or the next event brings our rules back")


@contextlib.contextmanager
def _manager(host: Host) -> Iterator[LibvirtManager]:
    if host.config.uri == "none":
        raise NwfilterHookError("the configuration says uri = none in [watch]: there is no libvirt to ask")
    libvirt = open_manager(host.config.uri)
    try:
        yield libvirt
    finally:
        libvirt.close()


def _tell(host: Host, found: Survey, direct: str) -> None:
    running = sum(each.running for each in found.guests)
    guests, filters = len(found.guests), len(found.filters)
    click.echo(f"{guests} guests, {running} of which run; {filters} filters, {len(found.used)} used")
    for definition in found.bring:
        click.echo(one_line(f"into the library: {definition.name}"))
    for name in found.twins:
        if not is_twin_xml(found.xml[name]):
            click.echo(one_line(f"becomes a twin: {name}"))
    for each in found.direct:
        what = f"gets {direct}" if direct else "nothing filters it; --direct FILTER does"
        click.echo(one_line(f"{each.guest.name}: {each.mac}: of type direct, libvirt drops its filter: {what}"))
    for line in differing(host, found):
        click.echo(one_line(f"verdict differs: {line}"))
    for line in found.notes:
        click.echo(one_line(line))
    for line in (*(f"libvirt ignores: {line}" for line in found.ignored), *found.faults):
        click.echo(one_line(f"nwfilter-hook: {line}"), err=True)


@contextlib.contextmanager
def _progress() -> Iterator[Step]:
    """A bar where there is somebody to look at it, and enough to do."""
    if not sys.stderr.isatty():
        yield lambda what, done, of: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, of: bar.update(task, description=one_line(what), completed=done, total=of)


def _done(report: Report, line: str) -> None:
    for note in report.notes:
        click.echo(one_line(note), err=True)
    click.echo(line)
