"""
Test files.

In:  YAML. Out: a `Suite` for each of its documents.

    filter: test-eth0              # the file's name without its end, if it isn't said; a list is a tree of them
    parameters: {IP: 192.0.2.10}
    cases:
      - name: web, from anywhere
        to-guest: {tcp: true, dst: ":80"}
        expect: pass
        rule: test-eth0:7

Every scalar is taken as text: YAML would make a number of 52:54:00:12:34:56.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..base.addresses import format_mac, parse_mac
from ..base.errors import InputError, PacketError, Source
from ..base.text import did_you_mean, one_line
from ..filters.parse import check_filter_name, check_parameter
from ..packets.given import WORDS, read_words
from ..ruleset.evaluate import State, Way
from ..ruleset.model import Attachment
from .model import Case, Suite
from .pyyaml import pyyaml

ENDS = (".yaml", ".yml")
_DEFAULT_MAC = "52:54:00:00:00:01"
_MOST_NODES = 500_000
_DEEPEST = 20
_SUITE_KEYS = ("filter", "mac", "parameters", "attachment", "learned", "sets", "cases")
_WAYS = {"from-guest": Way.FROM_GUEST, "to-guest": Way.TO_GUEST}
_CASE_KEYS = ("name", *_WAYS, "expect", "rule", "state", "reply", "from-host")
_CAPTURE_KEYS = ("pcap", "number")
_MOST_DIGITS = 9
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


class _Text(str):
    """A scalar, and where it stands."""

    line = 0
    plain = True


class _List(list):  # type: ignore[type-arg]
    line = 0


class _Mapping(dict):  # type: ignore[type-arg]
    line = 0


def read_suites(text: str, path: str) -> tuple[Suite, ...]:
    """
    What the file says.

    Raises:
        InputError: that is no test, with the line.
        NwfilterHookError: PyYAML isn't there.
    """
    documents = [each for each in _documents(text, path) if each is not None]
    if not documents:
        raise InputError("there are no cases in it", Source(path, 1))
    return tuple(_Reader(path).suite(each) for each in documents)


def _documents(text: str, path: str) -> list[Any]:
    yaml = pyyaml()
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.BaseLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(
            f"no YAML: {error.problem or error.context}", Source(path, mark.line + 1 if mark else 1)
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"no YAML: {one_line(str(error))}", Source(path, 1)) from None
    budget = [_MOST_NODES]
    return [_plain(node, path, budget, 0) for node in nodes]


def _plain(node: Any, path: str, budget: list[int], depth: int) -> Any:
    """A node as text, lists and mappings that know their lines."""
    line = node.start_mark.line + 1
    budget[0] -= 1
    if budget[0] < 0 or depth > _DEEPEST:
        raise InputError("more than a test file can hold", Source(path, line))
    if node.id == "scalar":
        if node.style is None and node.value in ("", "~", "null"):
            return None
        found = _Text(node.value)
        found.line, found.plain = line, node.style is None
        return found
    if node.id == "sequence":
        items = _List(_plain(each, path, budget, depth + 1) for each in node.value)
        items.line = line
        return items
    made = _Mapping()
    made.line = line
    for key_node, value_node in node.value:
        key = _plain(key_node, path, budget, depth + 1)
        if not isinstance(key, _Text):
            raise InputError("a key must be a word", Source(path, line))
        if key in made:
            raise InputError(f"{one_line(key)!r} is given twice", Source(path, key.line))
        made[key] = _plain(value_node, path, budget, depth + 1)
    return made


class _Reader:
    """Of one file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def suite(self, found: Any) -> Suite:
        """One document."""
        if not isinstance(found, _Mapping):
            raise self._error("a test file is a mapping: filter, parameters, cases", found)
        self._known(found, _SUITE_KEYS, "a test file")
        filters = found.get("filter", self._own_name())
        cases = found.get("cases")
        if not isinstance(cases, _List) or not cases:
            raise self._error("cases: is no list of cases", cases, found)
        return Suite(
            self.path,
            Source(self.path, found.line),
            tuple(self._checked(check_filter_name, each, found) for each in self._some("filter", filters, found)),
            self._mac(found),
            self._parameters(found),
            self._attachment(found),
            self._texts("learned", found.get("learned", _List()), found),
            {
                str(name): self._texts(name, each, found)
                for name, each in self._mapping("sets", found.get("sets"), found).items()
            },
            tuple(self._case(each, found) for each in cases),
        )

    def _own_name(self) -> _Text:
        name = self.path.rpartition("/")[2]
        found = _Text(next((name[: -len(end)] for end in ENDS if name.endswith(end)), name))
        found.line = 1
        return found

    def _case(self, found: Any, around: _Mapping) -> Case:
        if not isinstance(found, _Mapping):
            raise self._error("a case is a mapping: name, from-guest or to-guest, expect", found, around)
        self._known(found, _CASE_KEYS, "a case")
        ways = [word for word in _WAYS if word in found]
        if len(ways) != 1:
            raise self._error("a case has a packet, under from-guest or to-guest, one of them", found)
        if "expect" not in found:
            raise self._error("a case says what to expect: pass or drop", found)
        way = _WAYS[ways[0]]
        state = found.get("state")
        from_host = self._truth("from-host", found)
        if from_host and way is Way.FROM_GUEST:
            raise self._error("from-host goes with to-guest", found)
        reply = self._truth("reply", found)
        if reply and state is None:
            raise self._error("reply needs state", found)
        rule = found.get("rule")
        return Case(
            "" if found.get("name") is None else self._text("name", found),
            Source(self.path, found.line),
            way,
            self._packet(found[ways[0]], found),
            self._one_of("expect", ("pass", "drop"), found["expect"], found) == "pass",
            None if rule is None else self._text("rule", found),
            None if state is None else State(self._one_of("state", [each.value for each in State], state, found)),
            reply,
            from_host,
        )

    def _packet(self, found: Any, around: _Mapping) -> Mapping[str, Any]:
        if not isinstance(found, _Mapping) or not found:
            raise self._error(
                'a packet is a mapping of words, such as {tcp: true, dst: ":80"}, or hex, or pcap', found, around
            )
        if "hex" in found:
            self._known(found, ("hex",), "a packet by hex")
            return {"hex": self._text("hex", found)}
        if "pcap" in found:
            self._known(found, _CAPTURE_KEYS, "a packet of a capture")
            number = self._text("number", found) if "number" in found else "1"
            if not (number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS and int(number)):
                raise self._error(f"number: {number!r} is no number from 1", found["number"])
            path = self._text("pcap", found)
            if "\0" in path:
                raise self._error(f"pcap: {one_line(path)!r} is no name of a file", found["pcap"])
            return {"pcap": path, "number": int(number)}
        words = {str(word): self._word(value) for word, value in found.items()}
        try:
            read_words(words)
        except PacketError as error:
            near = next((key for key in found if key == error.word), None)
            more = (
                did_you_mean(error.word, ("hex", "pcap"))
                if error.word not in WORDS and near and "mean" not in str(error)
                else ""
            )
            raise self._error(f"{error}{more}", near, found) from None
        return words

    def _word(self, value: Any) -> Any:
        if isinstance(value, _List):
            return [str(each) for each in value]
        if isinstance(value, _Text):
            return _TRUTH.get(value, str(value)) if value.plain else str(value)
        return value

    # --- kinds of values ----------------------------------------------------------------------------------------------

    def _known(self, found: _Mapping, known: Iterable[str], what: str) -> None:
        for key in found:
            if key not in known:
                near = did_you_mean(key, known)
                raise self._error(f"{one_line(key)!r} is no key of {what}{near}; keys: {', '.join(known)}", key)

    def _text(self, name: str, around: _Mapping) -> str:
        found = around[name]
        if not isinstance(found, _Text) or not found:
            raise self._error(f"{name}: is no text", found, around)
        return str(found)

    def _some(self, name: str, found: Any, around: _Mapping) -> tuple[str, ...]:
        """As `_texts`, one at least."""
        texts = self._texts(name, found, around)
        if not texts:
            raise self._error(f"{one_line(name)}: is an empty list", found, around)
        return texts

    def _texts(self, name: str, found: Any, around: _Mapping) -> tuple[str, ...]:
        if isinstance(found, _Text):
            return (str(found),)
        if not isinstance(found, _List) or not all(isinstance(each, _Text) for each in found):
            raise self._error(f"{one_line(name)}: is neither a word nor a list of words", found, around)
        return tuple(str(each) for each in found)

    def _mapping(self, name: str, found: Any, around: _Mapping) -> _Mapping:
        if found is None:
            return _Mapping()
        if not isinstance(found, _Mapping):
            raise self._error(f"{name}: is no mapping", found, around)
        return found

    def _truth(self, name: str, found: _Mapping) -> bool:
        value = found.get(name)
        if value is None:
            return False
        return _TRUTH[self._one_of(name, tuple(_TRUTH), value, found)]

    def _one_of(self, name: str, known: Iterable[str], found: Any, around: _Mapping) -> str:
        if not isinstance(found, _Text) or found not in known:
            near = did_you_mean(found, known) if isinstance(found, _Text) else ""
            raise self._error(f"{name}: {one_line(str(found))!r} is not one of {', '.join(known)}{near}", found, around)
        return str(found)

    def _mac(self, found: _Mapping) -> str:
        text = self._text("mac", found) if "mac" in found else _DEFAULT_MAC
        try:
            return format_mac(parse_mac(text))
        except ValueError as error:
            raise self._error(f"mac: {one_line(text)!r} is not {error}", found["mac"]) from None

    def _attachment(self, found: _Mapping) -> Attachment:
        known = [each.value for each in Attachment]
        given = found.get("attachment")
        return Attachment.BRIDGE_PORT if given is None else Attachment(self._one_of("attachment", known, given, found))

    def _parameters(self, found: _Mapping) -> dict[str, tuple[str, ...]]:
        made = {}
        for name, given in self._mapping("parameters", found.get("parameters"), found).items():
            values = self._some(name, given, found)
            for value in values:
                check_parameter(str(name), value, Source(self.path, name.line), networks=True)
            made[str(name)] = values
        return made

    def _checked(self, check: Any, text: str, around: _Mapping) -> str:
        checked: str = check(text, Source(self.path, around.line))
        return checked

    def _error(self, message: str, *places: Any) -> InputError:
        line = next((each.line for each in places if getattr(each, "line", 0)), 1)
        return InputError(message, Source(self.path, line))
