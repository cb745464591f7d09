"""
How much one guest may ask for: what takes long to compile, or much memory, is refused before the start, with numbers.

In:  a guest's interfaces and the rules that their filters make. Out: nothing, or an error.
"""

from __future__ import annotations

from ..base.errors import DomainError, UnsupportedMatch
from ..domain.model import Domain, Interface
from ..filters.model import FilterRef
from ..ruleset.model import Ruleset

MAX_INTERFACES = 128
"""With a filter; libvirt's own machines have room for about 30 network cards, more with bridges of PCI."""

MAX_RULES_OF_TAP = 10_000
MAX_RULES_OF_GUEST = 20_000
"""Two seconds of compiling on a slow machine, and 100 MiB."""


class Bound:
    """Counts one guest's interfaces and rules. Raises DomainError at once if there are too many interfaces."""

    def __init__(self, domain: Domain) -> None:
        self._rules = 0
        filtered = [interface for interface in domain.interfaces if interface.reference]
        if len(filtered) > MAX_INTERFACES:
            number = f"{len(filtered)} interfaces with a filter, more than {MAX_INTERFACES}"
            raise DomainError(number, filtered[MAX_INTERFACES].source)

    def add(self, interface: Interface, rules: int) -> None:
        """
        Count an interface's rules.

        Raises:
            DomainError: with them the guest has too many.
        """
        self._rules += rules
        if self._rules > MAX_RULES_OF_GUEST:
            number = f"the guest's filters make {self._rules} rules up to here, more than {MAX_RULES_OF_GUEST}"
            raise DomainError(f"{number}; for many addresses use a network or an ipset", interface.source)


def count_rules(ruleset: Ruleset, reference: FilterRef) -> int:
    """
    How many rules a tap has.

    Raises:
        UnsupportedMatch: too many.
    """
    rules = sum(len(chain.rules) for chain in ruleset.chains)
    if rules > MAX_RULES_OF_TAP:
        number = f"filter {reference.filter!r} makes {rules} rules for one tap, more than {MAX_RULES_OF_TAP}"
        raise UnsupportedMatch(f"{number}; for many addresses use a network or an ipset", reference.source)
    return rules
