"""
What each type of the language accepts, as patterns of XML Schema (https://www.w3.org/TR/xmlschema-2/#regexs), which
match a whole value.

In:  a `Type` of the language's table.
Out: its `Pattern`s, one of which a value must match.
"""

from __future__ import annotations

from ..base.dataclass import dataclass
from .types import Type
from .values import STATES, TCP_FLAG_BITS, Number

MAX_ITERATOR = "0{0,3}[0-9]{1,3}|0{0,2}1000"
VARIABLE = rf"[$][A-Za-z0-9_]+(\[[ \t]*([0-9]{{1,6}}|@[ \t]*({MAX_ITERATOR}))[ \t]*\][ \t]*)?"
"""$NAME, $NAME[INDEX] or $NAME[@ITERATOR]."""

_BLANK = r"[ \t]*\+?"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"({_OCTET}\.){{3}}{_OCTET}"
_HEX = "[0-9a-fA-F]"
_GROUP = f"{_HEX}({_HEX}({_HEX}{_HEX}?)?)?"
"""Without a count: libxml2 gets counts within counts wrong."""


@dataclass(frozen=True)
class Pattern:
    """
    One way to write a value.

    Attributes:
        text: the pattern.
        also: another one, which the value must match as well.
        but: one which it must not match.
    """

    text: str
    also: str = ""
    but: str = ""


def patterns_of(type_: Type) -> tuple[Pattern, ...]:
    """The ways to write a literal of this type; words that stand for numbers among them."""
    parse = type_.parse
    found = _number(parse.low, parse.high) if isinstance(parse, Number) else _OTHERS[type_.name]
    return (*found, *(Pattern(any_case(word)) for word in type_.words))


def any_case(word: str) -> str:
    """A pattern of `word`, in upper and lower case."""
    return "".join(f"[{char.lower()}{char.upper()}]" if char.isalpha() else char for char in word)


def _number(low: int, high: int) -> tuple[Pattern, ...]:
    """Decimal; or hexadecimal, with or without 0x: what is decimal, too, is read so."""
    decimal = Pattern(f"{_BLANK}0*({_between(low, high, 10)})")
    digits = _between(low, high, 16)
    with_0x, without = Pattern(f"{_BLANK}0[xX]0*({digits})"), Pattern(f"{_BLANK}0*({digits})", but=f"{_BLANK}[0-9]+")
    return decimal, with_0x, without


def _between(low: int, high: int, base: int) -> str:
    """The numbers from `low` to `high`, without zeros in front."""
    found = []
    for length in range(len(_digits(low, base)), len(_digits(high, base)) + 1):
        first = max(low, base ** (length - 1) if length > 1 else 0)
        last = min(high, base**length - 1)
        found += _same_length(_digits(first, base), _digits(last, base), base)
    return "|".join(found)


def _same_length(first: list[int], last: list[int], base: int) -> list[str]:
    if not first:
        return [""]
    if first[0] == last[0]:
        return [_class(first[0], first[0]) + rest for rest in _same_length(first[1:], last[1:], base)]
    lowest, highest = [0] * (len(first) - 1), [base - 1] * (len(first) - 1)
    low, high, found = first[0], last[0], []
    if first[1:] != lowest:
        found += [_class(low, low) + rest for rest in _same_length(first[1:], highest, base)]
        low += 1
    if last[1:] != highest:
        found += [_class(high, high) + rest for rest in _same_length(lowest, last[1:], base)]
        high -= 1
    if low <= high:
        found.append(_class(low, high) + _class(0, base - 1) * (len(first) - 1))
    return found


def _digits(value: int, base: int) -> list[int]:
    found = [value % base]
    while value >= base:
        value //= base
        found.insert(0, value % base)
    return found


def _class(low: int, high: int) -> str:
    """One digit from `low` to `high`, in either case."""
    parts = ""
    for start, end, first in ((0, 9, "0"), (10, 15, "a"), (10, 15, "A")):
        a, b = max(low, start), min(high, end)
        if a <= b:
            begin, stop = chr(ord(first) + a - start), chr(ord(first) + b - start)
            parts += begin if a == b else f"{begin}-{stop}"
    return f"[{parts}]" if len(parts) > 1 else parts


def _ipv6() -> str:
    """All forms of RFC 4291, 2.2, as Python's ipaddress reads them; not a zone."""
    tail = f"({_GROUP}:{_GROUP}|{_IPV4})"
    found = [f"({_GROUP}:){{6}}{tail}", f"({_GROUP}:){{1,7}}:", "::", f"::({_GROUP}:){{0,6}}{_GROUP}"]
    found += [f"({_GROUP}:){{{before}}}(:{_GROUP}){{1,{7 - before}}}" for before in range(1, 7)]
    found += [f"::({_GROUP}:){{0,5}}{_IPV4}"]
    found += [f"({_GROUP}:){{{before}}}:({_GROUP}:){{0,{5 - before}}}{_IPV4}" for before in range(1, 6)]
    return "|".join(found)


def _ipv4_masks() -> str:
    def dotted(length: int) -> str:
        mask = (1 << 32) - (1 << 32 - length)
        return r"\.".join(str(mask >> shift & 0xFF) for shift in (24, 16, 8, 0))

    return "|".join(dotted(length) for length in range(33))


def _mac_masks() -> str:
    octet = "(00?|80|[cC]0|[eE]0|[fF]0|[fF]8|[fF][cC]|[fF][eE]|[fF]{2})"
    return "|".join(f"([fF]{{2}}:){{{full}}}{octet}(:00?){{{5 - full}}}" for full in range(6))


def _ipv6_masks() -> str:
    """Groups of ones, a group that may be mixed, zeros; how many there are is told by the form of an address."""
    mixed = "(0{1,4}|[8cCeE]000|[fF][08cCeE]00|[fF]{2}[08cCeE]0|[fF]{3}[08cCeEfF])"
    return f"(([fF]{{4}}:){{0,7}}{mixed})?(::?0{{1,4}})*(::)?"


def _length(bits: int) -> Pattern:
    return Pattern(f"0*({_between(0, bits, 10)})", also="[0-9]{1,3}")


_STATE = "|".join(map(any_case, STATES))
_FLAG = "|".join(map(any_case, TCP_FLAG_BITS))
_FLAGS = f"({_FLAG})(,({_FLAG}))*"
_SIDE = any_case("src") + "|" + any_case("dst")
_IPV6 = _ipv6()

_OTHERS = {
    "CONNLIMIT": (Pattern(f"{_BLANK}0*({_between(0, 0xFFFF, 10)})"),),
    "MAC_ADDR": (Pattern("[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}"),),
    "MAC_MASK": (Pattern(_mac_masks()),),
    "IP_ADDR": (Pattern(_IPV4),),
    "IP_MASK": (_length(32), Pattern(_ipv4_masks())),
    "IPV6_ADDR": (Pattern(_IPV6),),
    "IPV6_MASK": (_length(128), Pattern(_IPV6, also=_ipv6_masks())),
    "STATES": (Pattern(rf"[ ,\t]*({_STATE})([ ,\t]+({_STATE}))*[ ,\t]*"), Pattern(r"[ \t]*")),
    "TCPFLAGS": (Pattern(f"{_FLAGS}/({_FLAGS})?"),),
    "IPSETNAME": (Pattern("[A-Za-z0-9_.:+ \\-]{1,31}"),),
    "IPSETFLAGS": (Pattern(f"({_SIDE})(,({_SIDE})){{0,5}}"),),
    "BOOLEAN": (Pattern("true|1|yes|false|0|no"),),
    "TAGGED": (Pattern("yes|any|no"),),
    "STRING": (),
}
"""Patterns of the types that aren't numbers; none for text."""
