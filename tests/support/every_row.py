"""A filter with every attribute of the language, every sign and every action."""

from __future__ import annotations

import itertools

from tests.unit.filters.attributes import example, node, rows

NEEDS_CONNECTIONS = ("state", "connlimit-above")


def every_row(*, connections: bool) -> str:
    """
    The filter "every-row".

    Args:
        connections: with rules that look at connections, and some that reject.
    """
    actions = itertools.cycle(("drop", "accept", "return", "continue", *(("reject",) if connections else ())))
    directions = itertools.cycle(("inout", "out", "in"))
    rules = []
    for row in rows():
        if row.attribute == "match" or (row.attribute in NEEDS_CONNECTIONS and not connections):
            continue
        given = example(row)
        statematch = "" if connections else " statematch='false'"
        for negated in (False, True) if row.negatable else (False,):
            protocol = node(row.protocol, row.attribute, given.value, given, negated=negated)
            action, direction = next(actions), next(directions)
            if row.protocol == "stp":
                direction = "out"  # a BPDU with a source can't be inout
            rules.append(f"<rule action='{action}' direction='{direction}'{statematch}>{protocol}</rule>")
    return f"<filter name='every-row'>{''.join(rules)}</filter>"
