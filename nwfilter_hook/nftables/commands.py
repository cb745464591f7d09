"""
A transaction as typed commands, written down last.
"""

from __future__ import annotations

from ..backend import Transaction
from ..base.dataclass import dataclass
from ..base.errors import Source
from .names import TABLE


@dataclass(frozen=True)
class Operation:
    """
    One command of a transaction.

    Attributes:
        verb: "add", "create" (which must not be there), "flush" or "delete".
        kind: "table", "chain", "rule", "set", "map" or "element".
        name: of the chain (a rule's too), set or map (an element's too).
        key: of an element.
        value: what is added: a chain's hook, a rule, a declaration, what an element maps to.
        origin: of a rule that a filter made.
    """

    verb: str
    kind: str
    table: str
    name: str = ""
    key: str = ""
    value: str = ""
    origin: tuple[str, Source] | None = None

    @property
    def text(self) -> str:
        words = [self.verb, self.kind, self.table, TABLE, self.name]
        if self.kind == "element":
            words += ["{", self.key, *((":", self.value) if self.value else ()), "}"]
        elif self.value:
            words.append(self.value)
        return " ".join(filter(None, words))


@dataclass(frozen=True)
class Script(Transaction):
    """
    One transaction of nft.

    Attributes:
        first: chains that have to be there before, and drop, if they aren't there: ahead.py.
    """

    operations: tuple[Operation, ...]
    first: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "".join(f"{operation.text}\n" for operation in self.operations)
