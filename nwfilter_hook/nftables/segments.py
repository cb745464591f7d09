"""
What a transaction means for addresses that taps of a segment share out among them (learning_rules.py): worked out when
it is applied, by what the kernel has learned until then.

In:  a `Script`.
Out: the transaction with all that can be said before it, and another to follow.

    flush of a set of learned addresses     they are nobody's now: out of taken/SEG and the others
    deletion of such a set                  the guest may be at work, and learn until the transaction has taken its
                                            rules away: what is in the set then is given back, and the set deleted, by
                                            the second
    a tap's part of reserved-by/SEG comes   what it names other taps of the segment have learned no more
    a tap's part of reserved-by/SEG goes    what no other tap contributes goes from reserved/SEG, reserved-nets/SEG
    the last tap leaves a segment           its sets are deleted by the second
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..backend import Object
from ..base.dataclass import dataclass
from ..ruleset.fields import ValueType
from ..ruleset.model import SetPurpose
from .commands import Operation, Script
from .netlink import read_elements, read_sets
from .sets import SEGMENT_PURPOSES, LearnedName, declaration, kin_set, kind_of, lease_map, parse_learned, segment_set


@dataclass(frozen=True)
class _Segment:
    """One segment, for one version of IP."""

    table: str
    kind: ValueType
    name: str

    def set(self, purpose: SetPurpose) -> str:
        return segment_set(purpose, self.kind, self.name)


@dataclass(frozen=True)
class _Span:
    """Who contributes what to a segment's reserved addresses."""

    low: int
    high: int
    tap: str


def completed(script: Script) -> Script:
    """The first transaction. Raises NftError."""
    operations: list[Operation] = []
    left: dict[_Segment, set[_Span]] = {}
    come: dict[_Segment, set[_Span]] = {}
    flushed = [each for each in script.operations if each.verb == "flush" and each.kind == "set"]
    operations += _given_back(flushed)
    for each in script.operations:
        purpose = each.name.split("/")[0].rstrip("6")
        if each.kind == "element" and purpose == SetPurpose.RESERVED_BY.value:
            (left if each.verb == "delete" else come).setdefault(_segment_of(each), set()).update(_parse(each.key))
        networks = each.kind == "element" and purpose == SetPurpose.RESERVED_NETS.value
        if not _is_held(each) and not networks:
            operations.append(each)
    for segment, spans in come.items():
        for name, address in _learned_elsewhere(segment, spans):
            operations += _taken_away(segment, name, address)
    for segment in dict.fromkeys((*come, *left)):
        gone = left.get(segment, set())
        if {each.tap for each in gone} != {segment.name}:  # the sets of a tap that is alone go with it
            # what goes was added first, see script.py
            operations += _reserved(segment, come[segment] - gone, gone)
    return Script(tuple(operations))


def following(script: Script) -> Script:
    """The transaction to follow, empty if there is nothing left. Raises NftError."""
    held = [each for each in script.operations if _is_held(each)]
    operations = [*_given_back(held), *held]
    touched = [segment for each in held for segment in [_learned_in(each)] if segment]
    touched += [
        _segment_of(each)
        for each in script.operations
        if each.verb == "delete"
        and each.kind == "element"
        and each.name.split("/")[0].rstrip("6") == SetPurpose.RESERVED_BY.value
    ]
    names = {each.name for each in held}
    operations += dict.fromkeys(_kin_left(held, names))
    for segment in dict.fromkeys(touched):
        operations += _abandoned(segment, names)
    return Script(tuple(operations))


def taken_from_others(reserved: Object) -> list[tuple[str, str, str]]:
    """Of a "reserved" object, see backend.learned_by_others. Raises NftError."""
    tap, *spans = reserved.definition.split(" ")
    bounds = [span.split("-") for span in spans]
    contributed = [_Span(int(low, 16), int(high, 16), tap) for low, high in bounds]
    found = _learned_elsewhere(_segment_of(reserved), contributed)
    return [(name.text(address), tap, name.tap) for name, address in found]


def _learned_elsewhere(segment: _Segment, spans: Iterable[_Span]) -> Iterator[tuple[LearnedName, int]]:
    """What taps of the segment have learned of what others contribute: their sets, and the addresses."""
    spans = tuple(spans)
    known = {int.from_bytes(each.key, "big") for each in read_elements(segment.table, segment.set(SetPurpose.TAKEN))}
    known = {address for address in known if any(span.low <= address <= span.high for span in spans)}
    for name in map(parse_learned, read_sets(segment.table) if known else ()):
        if name is not None and name.mask is None and (name.kind, name.segment) == (segment.kind, segment.name):
            others = [span for span in spans if span.tap != name.tap]
            for element in read_elements(segment.table, name.name):
                address = int.from_bytes(element.key, "big")
                if address in known and any(span.low <= address <= span.high for span in others):
                    yield name, address


def _taken_away(segment: _Segment, name: LearnedName, address: int) -> Iterator[Operation]:
    """The tap whose set that is has the address no more; what it shares a mask with comes back with its next use."""
    for each in map(parse_learned, read_sets(segment.table)):
        if each is not None and (each.tap, each.kind, each.segment) == (name.tap, name.kind, name.segment):
            for verb in ("add", "delete"):
                yield Operation(verb, "element", segment.table, each.name, each.element(address))
    if name.newest:
        yield Operation("flush", "map", segment.table, lease_map(name.tap))
    yield from give_back(segment.table, name.name, [address])


def give_back(table: str, learned: str, addresses: Iterable[int], emptied: Iterable[str] = ()) -> Iterator[Operation]:
    """
    Take addresses that were in the set `learned` out of its segment's sets: they are nobody's now, but for those that
    another tap of the same guest has learned, too. Raises NftError.

    Args:
        emptied: other sets whose addresses are given back as well.
    """
    name = parse_learned(learned)
    gone = set(addresses)
    if name is None or not gone:
        return
    segment = _Segment(table, name.kind, name.segment)
    for other in _of_its_guest(table, name):
        if other.name not in emptied:
            gone -= {int.from_bytes(element.key, "big") for element in read_elements(table, other.name)}
    known = {f"{address:#x}" for address in gone}
    if not known:
        return
    keys = ", ".join(sorted(known))
    for shared in (*map(segment.set, (SetPurpose.TAKEN, SetPurpose.CLAIMED, SetPurpose.SEEN)), name.kin):
        # added first, since they may be gone by themselves
        yield from (Operation(verb, "element", table, shared, keys) for verb in ("add", "delete") if shared)
    # one that goes by itself may stay: whoever learns the address next makes it anew
    since = read_elements(table, segment.set(SetPurpose.SINCE))
    staying = {f"{int.from_bytes(each.key, 'big'):#x}" for each in since if each.left_s is None} & known
    if staying:
        yield Operation("delete", "element", table, segment.set(SetPurpose.SINCE), ", ".join(sorted(staying)))


def _of_its_guest(table: str, name: LearnedName) -> list[LearnedName]:
    """The sets of whole addresses of the guest's other taps on the segment."""
    if not name.guest:
        return []
    names = [each for each in map(parse_learned, read_sets(table)) if each and each.mask is None]
    return [each for each in names if each.tap != name.tap and _whose(each) == _whose(name)]


def claim(table: str, learned: str, addresses: Iterable[int], now_s: int) -> Iterator[Operation]:
    """Make addresses of the set `learned` its tap's, for good; refused if another has one of them."""
    name = parse_learned(learned)
    keys = [f"{address:#x}" for address in addresses]
    if name is None or not keys:
        return
    segment = _Segment(table, name.kind, name.segment)
    yield Operation("create", "element", table, segment.set(SetPurpose.TAKEN), ", ".join(keys))
    since = ", ".join(f"{key} : {now_s}" for key in keys)
    yield Operation("add", "element", table, segment.set(SetPurpose.SINCE), since)


def _is_held(each: Operation) -> bool:
    """The deletion of a set of learned addresses of a tap that shares a segment."""
    return each.verb == "delete" and each.kind == "set" and _learned_in(each) is not None


def _learned_in(each: Operation) -> _Segment | None:
    name = parse_learned(each.name)
    return _Segment(each.table, name.kind, name.segment) if name and name.segment != name.tap else None


def _given_back(emptied: Iterable[Operation]) -> Iterator[Operation]:
    emptied = tuple(emptied)
    names = {each.name for each in emptied}
    for each in emptied:
        name = parse_learned(each.name)
        if name is not None and name.mask is None and name.segment != name.tap:
            found = read_elements(each.table, each.name)
            yield from give_back(
                each.table, each.name, (int.from_bytes(element.key, "big") for element in found), names
            )


def _kin_left(held: Iterable[Operation], gone: set[str]) -> Iterator[Operation]:
    """The deletion of what the taps of a guest shared, if none of them learns on the segment any more."""
    for table, name in ((each.table, parse_learned(each.name)) for each in held):
        if name is None or not name.guest:
            continue
        there = read_sets(table)
        staying = [other for other in map(parse_learned, there) if other and other.name not in gone]
        if not any(_whose(other) == _whose(name) for other in staying):
            for gives_way in (False, True):
                kin = kin_set(name.kind, name.segment, name.guest, gives_way=gives_way)
                if kin in there:
                    yield Operation("delete", "set", table, kin)


def _whose(name: LearnedName) -> tuple[ValueType, str, str]:
    return name.kind, name.segment, name.guest


def _segment_of(each: Operation | Object) -> _Segment:
    """Of one of the segment's sets, or of an element in it."""
    purpose, _, name = each.name.partition("/")
    return _Segment(each.table, ValueType.IPV6 if purpose.endswith("6") else ValueType.IPV4, name)


def _parse(keys: str) -> Iterator[_Span]:
    for key in keys.split(", "):
        low, high, tap = key.split(" . ")
        yield _Span(int(low, 16), int(high, 16), tap.strip('"'))


def _contributors(segment: _Segment) -> set[_Span]:
    size = 16 if segment.kind is ValueType.IPV6 else 4
    found = set()
    for element in read_elements(segment.table, segment.set(SetPurpose.RESERVED_BY)):
        low, high, tap = element.key[:size], element.key[size : 2 * size], element.key[2 * size :]
        found.add(_Span(int.from_bytes(low, "big"), int.from_bytes(high, "big"), tap.rstrip(b"\0").decode()))
    return found


def _reserved(segment: _Segment, come: set[_Span], gone: set[_Span]) -> Iterator[Operation]:
    """
    What no other tap contributes goes. Networks are always all of them, none within another: nft (1.0.6) loses count
    if it has to merge them with those that it knows.
    """
    networks = any(each.low != each.high for each in come | gone)
    if not gone and not networks:
        return
    staying = (_contributors(segment) | come) - gone
    free = {each.low for each in gone if each.low == each.high} - {
        each.low for each in staying if each.low == each.high
    }
    if free:
        name, keys = segment.set(SetPurpose.RESERVED), ", ".join(f"{address:#x}" for address in sorted(free))
        yield Operation("add", "set", segment.table, name, value=declaration(name))
        yield from (Operation(verb, "element", segment.table, name, keys) for verb in ("add", "delete"))
    if networks:
        name = segment.set(SetPurpose.RESERVED_NETS)
        yield Operation("add", "set", segment.table, name, value=declaration(name))
        yield Operation("flush", "set", segment.table, name)
        spans = ", ".join(f"{low:#x}-{high:#x}" for low, high in _outermost(staying))
        if spans:
            yield Operation("add", "element", segment.table, name, spans)


def _outermost(spans: set[_Span]) -> Iterator[tuple[int, int]]:
    """The networks that are in no other; two of them overlap only if one is in the other."""
    last = -1
    for low, high in sorted({(each.low, each.high) for each in spans if each.low != each.high}, key=_by_size):
        if low > last:
            yield low, high
            last = high


def _by_size(span: tuple[int, int]) -> tuple[int, int]:
    """Where it begins; the larger first."""
    return span[0], -span[1]


def _abandoned(segment: _Segment, held: set[str]) -> Iterator[Operation]:
    """The deletion of the segment's sets, if no tap is in it any more."""
    names = read_sets(segment.table)
    learned = [parse_learned(name) for name in names if name not in held]
    if any(name and name.segment == segment.name and name.kind is segment.kind for name in learned):
        return
    if _contributors(segment):
        return
    for purpose in SEGMENT_PURPOSES:
        name = segment.set(purpose)
        if name in names:
            yield Operation("delete", kind_of(name), segment.table, name)
