"""The configuration file can be used."""

from __future__ import annotations

from collections.abc import Iterator

from ...config import config_file
from ..findings import Finding, wrong
from ..patient import Patient


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: no guest is started as long as it can't be used."""
    if patient.fault:
        why = "no guest with a filter can be started; those that run are looked after by another configuration"
        yield wrong(patient.fault, why, f"${{EDITOR:-vi}} {config_file()}")
