"""
Run the checks.

In:  a `Patient`. Out: what they find. A check is a file of `checks`, named after it with "-" for "_".
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator

from ..base.dataclass import replace
from ..base.errors import NwfilterHookError
from . import checks
from .findings import Finding, Level, wrong
from .patient import Patient


def names() -> list[str]:
    """Of all checks, in the order in which they run."""
    return sorted(each.name.replace("_", "-") for each in pkgutil.iter_modules(checks.__path__))


def examine(patient: Patient, wanted: Iterable[str]) -> list[Finding]:
    """All that these checks find; what is wrong comes first. A check that can't look finds that."""
    found = [replace(each, check=name) for name in wanted for each in _examine(patient, name)]
    return sorted(found, key=lambda each: each.level is not Level.WRONG)


def _examine(patient: Patient, name: str) -> Iterator[Finding]:
    module = importlib.import_module(f".{name.replace('-', '_')}", checks.__name__)
    try:
        yield from module.examine(patient)
    except (NwfilterHookError, OSError) as error:
        yield wrong(f"this can't be looked at: {error}", "what isn't looked at may be wrong", "")
