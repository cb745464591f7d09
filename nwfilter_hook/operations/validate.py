"""
Every fault of a filter.

In:  a filter's XML.
Out: the `Filter`, or all that is wrong with it in one error: what isn't nwfilter, and rules that no tap can have.
"""

from __future__ import annotations

from ..base.faults import Faults
from ..compiler.compile import check_rule
from ..filters.model import Filter
from ..filters.parse import read_filter
from ..filters.resolve import literal_rules


def validate(data: bytes, path: str) -> Filter:
    """
    The filter in `data`.

    Raises:
        InputError: it isn't one; the error's `more` has the further faults, by line.
    """
    faults = Faults()
    found = read_filter(data, path, faults)
    for rule in literal_rules(found):
        with faults:
            check_rule(rule)
    faults.raise_first()
    return found
