"""
Try the cases of test files, by the evaluator or in the kernel; make cases of a capture.

In:  a `Host`, a `Suite`. Out: an `Outcome` for each case.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Callable

from ..backend import Rendered
from ..base.errors import InputError, NwfilterHookError, Source, SystemErrorAs
from ..cases.model import NO_RULE, Case, Outcome, Suite
from ..cases.read import ENDS, read_suites
from ..explain.explain import Explanation, explain
from ..filters.model import Filter, FilterRef
from ..host import Host
from ..network.private import ASIDE, GUEST, OUTSIDE, PrivateBridge
from ..packets.before import frames_before
from ..packets.connections import Connections
from ..packets.describe import describe
from ..packets.hexdump import parse_hex
from ..packets.state import guess_state
from ..packets.words import build
from ..ruleset.evaluate import Context, Way, evaluate_frame
from ..ruleset.fields import Field
from ..ruleset.frame import ETHERNET_BYTES, Frame
from ..ruleset.judged import Judged, Sought, Tracer, told_apart
from ..ruleset.model import Attachment
from ..storage.captures import Capture
from ..storage.library import Library
from .address_sets import parse_element
from .compile import in_force
from .explain import Subject, can_learn, decode, of_filter, way_of

_MAX_BYTES = 8 << 20
_TREE = "nwfilter-hook-test"
_RATE = 1_000_000
_PATIENCE_S = 2.0
_MOST_RECORDED = 10_000
_MORE_OR_OFFSET = 0x3FFF
"""Of the IPv4 header's flags and fragment offset."""


def read_files(paths: tuple[str, ...]) -> Iterator[Suite]:
    """
    The suites of these files, and of all test files below these directories, by name.

    Raises:
        NwfilterHookError: one can't be read, or is none.
    """
    for path in paths:
        found = _below(path) if os.path.isdir(path) else [path]
        if not found:
            raise NwfilterHookError(f"{path}: no test files there (*{', *'.join(ENDS)})")
        for each in found:
            with SystemErrorAs(NwfilterHookError, each), open(each, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
            if len(data) > _MAX_BYTES:
                raise InputError("more than a test file can hold", Source(each, 1))
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                raise InputError("no UTF-8", Source(each, data.count(b"\n", 0, error.start) + 1)) from None
            yield from read_suites(text, each)


def _below(directory: str) -> list[str]:
    return sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(directory)
        for name in names
        if name.endswith(ENDS) and not name.startswith(".")
    )


class Trial:
    """
    One suite, its filters compiled.

    Raises:
        NwfilterHookError: they can't be.
    """

    def __init__(self, host: Host, suite: Suite, directories: tuple[str, ...]) -> None:
        self._host, self.suite = host, suite
        beside = os.path.dirname(suite.path) or "."
        library = Library((beside, os.path.dirname(os.path.abspath(beside)), *directories), trusting=True)
        name = suite.filters[0]
        if len(suite.filters) > 1:
            name = _TREE
            references = tuple(FilterRef(each, {}, suite.source) for each in suite.filters)
            library = library.with_filter(Filter(name, None, "root", 0, references, suite.source))
        try:
            self.subject = of_filter(
                *(host, FilterRef(name, suite.parameters, suite.source), suite.mac, library),
                tap=GUEST,
                attachment=suite.attachment,
                learned=suite.learned,
                sets=suite.sets,
            )
        except InputError:
            raise
        except NwfilterHookError as error:
            raise InputError(str(error), suite.source) from None
        self._captured: dict[str, tuple[Mapping[int, bytes], str | None]] = {}

    def question(self, case: Case) -> tuple[Frame, Context]:
        """
        The packet, and what the kernel is to know of it.

        Raises:
            NwfilterHookError: it can't be made.
        """
        frame = decode(self.subject, self._data(case), case.way)
        state, reply = case.state, case.reply
        if state is None:
            guess = guess_state(frame)
            state, reply = guess.state, guess.reply
        return frame, Context(state, reply, self.subject.sets, from_host=case.from_host)

    def _data(self, case: Case) -> bytes:
        packet = case.packet
        if "hex" in packet:
            return parse_hex(packet["hex"])
        if "pcap" in packet:
            return self._frame_of(packet["pcap"], packet["number"])
        return build(packet, self.subject.guest, case.way).data

    def _frame_of(self, name: str, number: int) -> bytes:
        """Of a capture, which is read once for all cases, as far as one of them asks."""
        path = os.path.join(os.path.dirname(self.suite.path), name)
        if name not in self._captured:
            wanted = {case.packet["number"] for case in self.suite.cases if case.packet.get("pcap") == name}
            self._captured[name] = _frames(Capture(path), wanted)
        found, fault = self._captured[name]
        if number not in found:
            raise NwfilterHookError(f"no frame {number}: {fault}" if fault else f"{path} has no frame {number}")
        return found[number]

    def explain(self, case: Case) -> Explanation:
        """Why it ends as it does, by the evaluator."""
        frame, context = self.question(case)
        return explain(self.subject.ruleset, frame, case.way, context, self.subject.line_of)

    def evaluate(self) -> Iterator[Outcome]:
        """All cases, by the evaluator."""
        for case in self.suite.cases:
            yield self._tried(case, self._evaluate)

    def _evaluate(self, case: Case) -> Outcome:
        frame, context = self.question(case)
        found = evaluate_frame(self.subject.ruleset, frame, case.way, context)
        by = [layer.decided_by for layer in found.layers if layer.decided_by is not None]
        return Outcome(self.suite, case, found.passes, _deciding(found.passes, [each.provenance for each in by]))

    def _tried(self, case: Case, judge: Callable[[Case], Outcome]) -> Outcome:
        try:
            return judge(case)
        except NwfilterHookError as error:
            return Outcome(self.suite, case, fault=str(error))

    # --- the kernel ---------------------------------------------------------------------------------------------------

    def try_in(self, bridge: PrivateBridge) -> Iterator[Outcome]:
        """
        All cases, by the kernel: rules are put into force there.

        Raises:
            NwfilterHookError: the kernel can't do, or refuses, what they need.
        """
        if self.suite.attachment is not Attachment.BRIDGE_PORT:
            for case in self.suite.cases:
                yield Outcome(self.suite, case, untried="the kernel is asked of ports of a bridge only")
            return
        backend = self._host.backend
        backend.check([self.subject.ruleset])
        rendered = backend.render(in_force(self._host, self.subject.ruleset))
        self._install(rendered)
        sought = Sought(self.suite.attachment, bridge.index(GUEST), tuple(Way), (), _RATE)
        tracer = backend.trace(rendered.installed, sought)
        try:
            for number, case in enumerate(self.suite.cases):
                if number and can_learn(self.subject.ruleset):
                    self._install(rendered)
                yield self._tried(case, lambda each: self._send(each, bridge, tracer))
        finally:
            tracer.close()
            backend.apply(backend.remove([rendered.installed]))

    def _install(self, rendered: Rendered) -> None:
        """Put the rules into force, as if nothing had been learned but what the file says."""
        backend, suite, installed = self._host.backend, self.suite, rendered.installed
        backend.apply(backend.remove([installed]))
        backend.apply(backend.install([rendered], fresh=True))
        if suite.learned:
            backend.set_learned(installed, backend.learnable(installed), suite.learned)
        for name, elements in suite.sets.items():
            found = [parse_element(name, each) for each in elements]
            backend.change_set("add", [(each.named, each.text) for each in found])

    def _send(self, case: Case, bridge: PrivateBridge, tracer: Tracer) -> Outcome:
        frame, context = self.question(case)
        before = frames_before(frame, context.state, reply=context.reply)
        if before is None or case.from_host:
            what = "a packet of the host itself" if case.from_host else f"this packet in state {context.state.value}"
            return Outcome(self.suite, case, untried=f"{what} can't be sent here")
        bridge.forget()
        for each in before:
            bridge.send(ASIDE, each)
        tracer.read()
        sender, receiver = (GUEST, OUTSIDE) if case.way is Way.FROM_GUEST else (OUTSIDE, GUEST)
        bridge.received(receiver)
        bridge.send(sender, frame.data)
        judged = _next(tracer, case.way, frame.data)
        arrives = frame.data in bridge.received(receiver)
        if not arrives and (judged is None or judged.passes):
            what = "the kernel keeps this packet, though the rules that it has met let it pass"
            if case.passes or _is_fragment(frame):
                return Outcome(self.suite, case, untried=what)
            return Outcome(self.suite, case, fault=what)
        if judged is None:
            return Outcome(self.suite, case, fault="it arrives, and the kernel doesn't tell that rules have seen it")
        if judged.verdict == "unknown":
            if case.rule is not None:
                return Outcome(self.suite, case, untried="of such a packet the kernel doesn't tell which rule decides")
            return Outcome(self.suite, case, arrives)
        if arrives and not judged.passes:
            return Outcome(self.suite, case, fault="the rules drop it, but it arrives")
        judged = told_apart(judged, self.subject.ruleset, frame)
        by = [layer.rule for layer in judged.layers if layer.rule]
        return Outcome(self.suite, case, judged.passes, _deciding(judged.passes, by))


def _frames(capture: Capture, wanted: set[int]) -> tuple[Mapping[int, bytes], str | None]:
    """Frames by number; and why the capture has no more, unless it ends well."""
    found = {}
    try:
        for captured in capture:
            if captured.number in wanted:
                found[captured.number] = captured.data
            if captured.number >= max(wanted):
                break
    except NwfilterHookError as error:
        return found, str(error)
    return found, capture.fault


def _deciding(passes: bool, rules: list[str]) -> tuple[str, ...]:
    """Of rules that ended a layer, in their order, those that decided; what lets on to the bridge is none."""
    decided = [rule for rule in rules if ":" in rule]
    return tuple(decided if passes else decided[-1:])


def _is_fragment(frame: Frame) -> bool:
    """Then it can be that it waits for the others: connection tracking puts them together."""
    offset = frame.value(Field.IP_FRAGMENT)
    return bool(offset and offset & _MORE_OR_OFFSET) or frame.value(Field.IP6_FRAGMENT) is not None


def _next(tracer: Tracer, way: Way, data: bytes) -> Judged | None:
    """What became of the frame; late news of others is passed over."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        for judged in tracer.read():
            if judged.way is way and (judged.data == data or not judged.whole):
                return judged
        time.sleep(0.0005)
    return None


# --- record -----------------------------------------------------------------------------------------------------------


def record(subject: Subject, path: str, way: Way | None) -> tuple[list[Mapping[str, Any]], list[str]]:
    """
    Cases of a capture's frames, each once, with today's verdicts; and what a person should know about them.

    Args:
        way: of all frames; None to see it by each.

    Raises:
        NwfilterHookError: it can't be read.
    """
    capture, connections = Capture(path), Connections()
    cases: list[Mapping[str, Any]] = []
    seen: set[tuple[bytes, Way, str]] = set()
    short = more = cut = 0
    for captured in capture:
        if len(captured.data) < ETHERNET_BYTES:
            short += 1
            continue
        of_frame = way or way_of(captured.data, captured.inbound, subject.guest.mac)[0]
        frame = decode(subject, captured.data, of_frame)
        guess = connections.guess(frame)
        key = captured.data, of_frame, f"{guess.state.value} {guess.reply}"
        if key in seen:
            continue
        if len(cases) >= _MOST_RECORDED:
            more += 1
            continue
        seen.add(key)
        cut += captured.missing > 0
        known = Context(guess.state, guess.reply, subject.sets)
        found = evaluate_frame(subject.ruleset, frame, of_frame, known)
        by = found.decided_by
        cases.append(
            {
                "name": f"frame {captured.number}: {describe(frame)}",
                "from-guest" if of_frame is Way.FROM_GUEST else "to-guest": {"hex": captured.data.hex()},
                "state": guess.state.value,
                **({"reply": "true"} if guess.reply else {}),
                "expect": "pass" if found.passes else "drop",
                "rule": NO_RULE if by is None else by.provenance,
            }
        )
    notes = [capture.fault] if capture.fault else []
    if cut:
        notes.append(f"{cut} frames are cut off in the capture: what it lacks is taken for zeros")
    if short:
        notes.append(f"{short} frames are shorter than an Ethernet header: no case is made of them")
    if more:
        notes.append(f"only {_MOST_RECORDED} cases are made; {more} further frames are left out")
    if not cases:
        raise NwfilterHookError(f"{path} has no frame to make a case of")
    return cases, notes
