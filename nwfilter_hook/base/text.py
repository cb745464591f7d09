"""
Text that people read: one line, never too long, with a hint.
"""

from __future__ import annotations

from collections.abc import Iterable


def one_line(text: str) -> str:
    """`text` with every control character spelled out, so that no input can forge a second line of output."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def xml_escaped(text: str) -> str:
    """For XML's text, and for attributes in single quotes (xml.sax.saxutils imports urllib, http and ssl)."""
    return text.translate(_XML)


_XML = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&apos;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
)


def shortened(line: str) -> str:
    """What a person can read: the beginning of a long line and its end, where the advice stands."""
    return line if len(line) <= _READABLE else f"{line[: _READABLE - 250]} … {line[-240:]}"


_READABLE = 900


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """ "; did you mean 'X'?" for the candidate nearest to `word`, or "" if none is near."""
    near = nearest(word, candidates)
    return "" if near is None else f"; did you mean {near!r}?"


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` was probably meant to be, or None."""
    import difflib

    if len(word) > _LONG:
        return None
    plain = {candidate.lower(): candidate for candidate in candidates}
    return next((plain[each] for each in difflib.get_close_matches(word.lower(), plain, n=1, cutoff=0.6)), None)


_LONG = 200
"""A longer word is near to no name of ours, and takes long to compare."""
