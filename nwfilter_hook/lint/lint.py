"""
Judge a filter: every check on its tree, for several values of the variables that nobody gave.

In:  a filter, what reads others, and parameters as an interface would give them.
Out: `Finding`s by place. What isn't found for every set of placeholders isn't told: it may be true of one only.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import lru_cache

from ..filters.model import Filter, FilterRef, Parameters
from ..filters.resolve import ReadFilter, walk_tree
from ..ruleset.values import TooComplex
from . import checks
from .allowed import Allowed
from .findings import Check, Finding
from .placeholders import MAC, SETS, unbound, values_for
from .tree import Tree

NO_VALUE, UNKNOWN_CODE, NOT_JUDGED = "NWF145", "NWF146", "NWF147"


@lru_cache(maxsize=1)
def all_checks() -> dict[str, Check]:
    """Every check by its code."""
    found = [
        check
        for module in pkgutil.iter_modules(checks.__path__)
        for check in importlib.import_module(f"{checks.__name__}.{module.name}").CHECKS
    ]
    return {check.code: check for check in sorted([*found, *_OWN], key=lambda check: check.code)}


def judge(entry: Filter, read_filter: ReadFilter, parameters: Parameters, *, whole: bool) -> list[Finding]:
    """
    What is probably not meant in `entry` and in all that it refers to.

    Args:
        parameters: what an interface gives; of variables that it doesn't, placeholders are made.
        whole: whether the filter is to be all that an interface has, or is a part for others.

    Raises:
        InputError: it doesn't compile, whatever its variables are.
    """
    reference = FilterRef(entry.name, dict(parameters), entry.source)
    inner = {"MAC": MAC[:1], "LINK_LOCAL": ("fe80::1",), **parameters}
    instances = tuple(walk_tree(reference, dict(inner), read_filter))
    wanted = unbound(instances)
    found: list[list[Finding]] = []
    filters = {instance.filter.name: instance.filter for instance in instances}
    allowed = Allowed({**filters, entry.name: entry}, entry)
    for number in SETS:
        values = values_for(wanted, number)
        if len(values) < len(wanted):
            name = next(name for name in wanted if name not in values)
            use = wanted[name][0]
            message = f"${name} can't have a value that fits all its uses: nothing else is judged"
            return _sorted([Finding(NO_VALUE, message, use.filter, use.source)], allowed)
        tree = Tree(
            entry,
            read_filter,
            MAC[number],
            {**parameters, **values},
            whole=whole,
            given=frozenset(parameters),
        )
        found.append(list(_findings(tree)))
    common = set.intersection(*({(each.code, each.source) for each in findings} for findings in found))
    told = [each for each in found[0] if (each.code, each.source) in common]
    told += [
        Finding(UNKNOWN_CODE, f"allow {code}: there is no such code", definition.name, definition.source)
        for definition, code in allowed.named
        if code not in all_checks()
    ]
    return _sorted(told, allowed)


def _findings(tree: Tree) -> Iterator[Finding]:
    told = False
    for check in all_checks().values():
        try:
            yield from check.find(tree)
        except TooComplex as error:
            if not told:
                yield Finding(
                    NOT_JUDGED, f"not all is judged, it is too large: {error}", tree.entry.name, tree.entry.source
                )
            told = True


def _sorted(findings: list[Finding], allowed: Allowed) -> list[Finding]:
    told = {(each.code, each.source, each.message): each for each in findings if not allowed(each)}
    return sorted(told.values(), key=lambda each: (each.source.path, each.source.line or 0, each.code))


_OWN = (
    Check(
        NO_VALUE,
        "a variable that no value fits",
        "It stands in attributes of different types, such as an IPv4 and an IPv6 address, so no parameter is right. "
        "Use two variables. Nothing else of such a filter is judged.",
        lambda tree: (),
    ),
    Check(
        UNKNOWN_CODE,
        "a comment that allows a code that isn't there",
        "Comments <!-- nwfilter-hook: allow CODE … --> suppress findings; `lint --explain` lists the codes.",
        lambda tree: (),
    ),
    Check(
        NOT_JUDGED,
        "a filter that is too large to be judged",
        "The checks follow all frames there can be through all rules. That takes too long where many hundred rules ask "
        "for overlapping networks and ranges. The other findings are complete.",
        lambda tree: (),
    ),
)
