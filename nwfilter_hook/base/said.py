"""
What is said to people, and what programs want to know of it beside the words: a kind, a priority, and names.

In:  a line, its kind, whom it is about.
Out: a `Said`, which is that line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .dataclass import dataclass


class Priority:
    """As syslog's and the journal's, syslog(3)."""

    CRITICAL, ERROR, WARNING, NOTICE, INFO = 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Kind:
    """
    What a line tells.

    Attributes:
        name: a word for it.
        id: what the journal knows it by (MESSAGE_ID), for ever the same; "" if it is no kind of its own.
        quiet: for the journal alone: nobody waits for it.
    """

    name: str
    id: str
    priority: int
    quiet: bool = False


PLAIN = Kind("plain", "", Priority.ERROR)
REFUSED = Kind("refused", "e346a61f39244cf3b4790182da5e8bd0", Priority.ERROR)
FAILED = Kind("failed", "7bc2a8a2a6da443fab6510ec6799e998", Priority.ERROR)
QUARANTINED = Kind("quarantined", "05b16934bc2e4cc7aa1000f0d47dfd69", Priority.CRITICAL)
UNFILTERED = Kind("unfiltered", "75f4bf40a93b477d80bba1d85c1b3e2a", Priority.CRITICAL)
REPAIRED = Kind("repaired", "6e6178925fc04769bcff94f43149e7ea", Priority.WARNING)
CHANGED = Kind("changed", "8b3946d8778747ebbc2a67951cc0e117", Priority.NOTICE)
DEVICE = Kind("device", "2cb25ddf8a0b4ab5a08976a79e01c769", Priority.NOTICE)
BYPASSED = Kind("bypassed", "60cc3f0f06014dd2a4f7dc9006af17de", Priority.WARNING)
LEARNED = Kind("learned", "3bc8d9503c614209bc92b7dee5c05079", Priority.NOTICE)
WARNING = Kind("warning", "c27bd723dbd641ad9ee9e2a9f0be48f1", Priority.WARNING)
STATE = Kind("state", "c3abd15329a740a3ba1d5041eac9da95", Priority.ERROR)
CONFIGURATION = Kind("configuration", "2e08ca058897467598c843d2993c7c50", Priority.ERROR)
DRIFT = Kind("drift", "adf910cd75564ef08eae5ab558b593bc", Priority.WARNING)
SERVICE = Kind("service", "6a9e6578e0b44bdd9aaa08e4dd8990e6", Priority.INFO)
INSTALLED = Kind("installed", "cc81fe19d6ed4b57ad58f2db222bbe4c", Priority.INFO, quiet=True)
REMOVED = Kind("removed", "c1f48954c40e451a8fce5bf63c8be380", Priority.INFO, quiet=True)

Fields = Mapping[str, tuple[str, ...]]
FIELDS = ("guest", "uuid", "tap", "filter", "operation")
"""What a line may be about; each may have several values."""


class Said(str):
    """
    A line.

    Attributes:
        fields: whom it is about, by `FIELDS`.
    """

    kind: Kind
    fields: Fields

    def __new__(cls, text: str, kind: Kind = PLAIN, /, **fields: str | Iterable[str] | None) -> Said:
        line = super().__new__(cls, text)
        line.kind = kind
        line.fields = {
            name: (value,) if isinstance(value, str) else tuple(value) for name, value in fields.items() if value
        }
        return line


def about(line: str, **fields: str | Iterable[str] | None) -> Said:
    """`line`, with these fields where it has none of its own."""
    known = line.fields if isinstance(line, Said) else {}
    return Said(line, kind_of(line), **{**fields, **known})


def worded(text: str, line: str) -> Said:
    """`text` in place of `line`: of the same kind, about the same."""
    return Said(text, kind_of(line), **(line.fields if isinstance(line, Said) else {}))


def kind_of(line: str) -> Kind:
    """What kind of line it is."""
    return line.kind if isinstance(line, Said) else PLAIN
