"""
nwfilter-hook metrics: for Prometheus.
"""

from __future__ import annotations

import click

from ..operations.exposition import OPENMETRICS, PROMETHEUS, exposition
from ..operations.metrics import read_families
from ..storage.textfile import write_textfile
from .common import open_cli_host


@click.command()
@click.option("--textfile", metavar="FILE", help="Write it there for node_exporter, whole or not at all.")
@click.option("--format", "form", type=click.Choice((OPENMETRICS, PROMETHEUS)), help="Of what is printed.")
def metrics(textfile: str | None, form: str | None) -> None:
    """Print what there is to measure: taps, drops, connections, transactions, repairs, refusals, the service."""
    if textfile == "":
        raise click.UsageError("--textfile needs a file's name")
    if textfile is not None and form == OPENMETRICS:
        raise click.UsageError("node_exporter reads no OpenMetrics: no --format openmetrics with --textfile")
    families = read_families(open_cli_host(readonly=True))
    if textfile is None:
        click.echo(exposition(families, form or OPENMETRICS), nl=False)
    else:
        write_textfile(textfile, exposition(families, PROMETHEUS))
