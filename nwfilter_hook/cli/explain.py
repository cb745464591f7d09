"""
nwfilter-hook explain: why does a packet pass, or not?
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from ..base.errors import NwfilterHookError, Source, SystemErrorAs
from ..explain.capture import Judge
from ..explain.explain import explain as explain_frame
from ..filters.model import FilterRef
from ..operations.explain import Subject, decode, of_filter, of_tap, way_of
from ..packets.connections import Connections
from ..packets.given import KINDS
from ..packets.hexdump import parse_hex
from ..packets.state import guess_state
from ..packets.words import build
from ..ruleset.evaluate import Context, State, Way
from ..ruleset.frame import ETHERNET_BYTES
from ..ruleset.model import Attachment
from ..storage.captures import Capture, Captured
from ..storage.library import Library
from .answers import Question, Summary, as_json, print_answer, print_summary, summary_as_json
from .common import json_option, open_cli_host, print_error
from .complete import names_of
from .options import (
    attachment_option,
    filter_option,
    filters_option,
    packet_options,
    parameter_option,
    read_mac,
    said,
)

_NO_ANSWER = 2


@click.command()
@click.argument("tap", required=False, shell_complete=names_of("tap"))
@filter_option("A filter in place of a tap.")
@click.option("--mac", callback=read_mac, help="With --filter: the guest's MAC address, the value of $MAC.")
@parameter_option
@filters_option
@attachment_option
@click.option("--learned", multiple=True, metavar="ADDRESS", help="With --filter: it has learned this address or MAC.")
@click.option("--set", "sets", multiple=True, metavar="NAME=ADDRESS", help="With --filter: this is in the set NAME.")
@click.option("--from-guest", "sends", flag_value="from", help="The guest sends the packet.")
@click.option("--to-guest", "sends", flag_value="to", help="The guest is to get it.")
@click.option("--from-host", is_flag=True, help="The host itself sends or routes it to the guest.")
@click.option(
    "--hex", "hex_text", metavar="HEX", help="The frame as it was; - reads it (tcpdump -xx, Wireshark) from stdin."
)
@click.option("--pcap", metavar="FILE", help="A capture that has the frame, pcap or pcapng; - reads it from stdin.")
@click.option("--number", type=click.IntRange(1), metavar="N", help="With --pcap: its frame N.")
@click.option("--all", "every", is_flag=True, help="With --pcap: all its frames, as a table of verdicts and rules.")
@click.option("--state", type=click.Choice([each.value for each in State]), help="Of its connection.")
@click.option("--reply", is_flag=True, help="It goes against its connection's first packet.")
@packet_options
@json_option
def explain(**options: Any) -> None:
    """
    Say which rules of a TAP, or of a filter, look at a packet, which decides, and what another would have needed.

    Exit status: 0 it passes (of a capture, all), 1 it is dropped, 2 there is no answer.
    """
    try:
        passes = _Command(options).run()
    except NwfilterHookError as error:
        print_error(error)
        sys.exit(_NO_ANSWER)
    sys.exit(0 if passes else 1)


class _Command:
    """One run."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options, self.words = options, said(options)

    def run(self) -> bool:
        """Print the answer. Returns whether the packet passes, or all of them."""
        self._check()
        subject = self._subject()
        if self.options["every"]:
            return self._run_all(subject)
        question = self._question(subject)
        found = explain_frame(subject.ruleset, question.frame, question.way, question.context, subject.line_of)
        if self.options["as_json"]:
            click.echo(json.dumps(as_json(subject, question, found), indent=2))
        else:
            print_answer(subject, question, found)
        return found.passes

    def _check(self) -> None:
        """See that options go together. Raises UsageError."""
        options, words = self.options, self.words
        if (options["tap"] is None) is (options["filter"] is None):
            raise click.UsageError("say a TAP or --filter NAME, one of them")
        if options["filter"] is not None and options["mac"] is None:
            raise click.UsageError("--filter needs --mac, the value of $MAC")
        if options["filter"] is None:
            for name in ("mac", "parameters", "filters", "learned", "sets"):
                if options[name]:
                    option = {"parameters": "-p", "sets": "--set"}.get(name, f"--{name}")
                    raise click.UsageError(f"{option} goes with --filter; a tap has its own")
        given = [f"--{name}" for name, key in (("hex", "hex_text"), ("pcap", "pcap")) if options[key] is not None]
        given += [f"--{next(iter(words))}"] if words else []
        if len(given) > 1:
            raise click.UsageError(f"a packet by {' or '.join(given)}, one of them")
        if not given:
            raise click.UsageError(f"what packet? by words (--{', --'.join(KINDS)}), --hex or --pcap")
        for key, name in (("number", "--number"), ("every", "--all")):
            if options[key] and options["pcap"] is None:
                raise click.UsageError(f"{name} goes with --pcap")
        if options["number"] and options["every"]:
            raise click.UsageError("--number or --all, one of them")
        if options["every"] and (options["state"] is not None or options["reply"]):
            raise click.UsageError("--all works out each packet's state; --state and --reply are for one packet")
        if options["from_host"] and options["sends"] == "from":
            raise click.UsageError("--from-host: the host sends to the guest")
        if words and self._way() is None:
            raise click.UsageError("say --from-guest or --to-guest")

    def _subject(self) -> Subject:
        options = self.options
        host = open_cli_host(readonly=True)
        if options["tap"] is not None:
            return of_tap(host, options["tap"])
        library = Library((*options["filters"], *host.config.filter_dirs), trusting=True)
        reference = FilterRef(options["filter"], options["parameters"], Source("--filter", 0))
        return of_filter(
            host,
            reference,
            options["mac"],
            library,
            attachment=Attachment(options["attachment"]),
            learned=options["learned"],
            sets=_sets(options["sets"]),
        )

    def _question(self, subject: Subject) -> Question:
        options, way = self.options, self._way()
        assumed: list[str] = []
        if way is not None and self.words:
            packet = build(self.words, subject.guest, way)
            data, assumed = packet.data, list(packet.assumed)
        else:
            data, inbound = self._given(assumed)
            if way is None:
                way, why = way_of(data, inbound, subject.guest.mac)
                assumed.append(f"--{'from' if way is Way.FROM_GUEST else 'to'}-guest ({why})")
        frame = decode(subject, data, way)
        guess = guess_state(frame)
        state, reply = guess.state, guess.reply
        if options["state"] is None:
            assumed.append(f"state {state.value}{', reply' if reply else ''} ({guess.why})")
        else:
            state, reply = State(options["state"]), False
        known = Context(state, reply or options["reply"], subject.sets, from_host=options["from_host"])
        return Question(frame, way, known, tuple(assumed))

    def _given(self, assumed: list[str]) -> tuple[bytes, bool | None]:
        """The frame of --hex or --pcap, and whether it came in through the tap, if that is known."""
        if self.options["hex_text"] is not None:
            return parse_hex(_text(self.options["hex_text"])), None
        captured = _one_of(Capture(self.options["pcap"]), self.options["number"])
        if captured.missing:
            held = len(captured.data) - captured.missing
            assumed.append(f"zeros behind octet {held} of {len(captured.data)} (the capture has no more of it)")
        return captured.data, captured.inbound

    def _run_all(self, subject: Subject) -> bool:
        options, way = self.options, self._way()
        judge = Judge(subject.ruleset, Context(sets=subject.sets, from_host=options["from_host"]), subject.line_of)
        connections, capture = Connections(), Capture(options["pcap"])
        frames = cut = short = 0
        for captured in capture:
            frames += 1
            cut += captured.missing > 0
            if len(captured.data) < ETHERNET_BYTES:
                short += 1
                continue
            of_frame = way or way_of(captured.data, captured.inbound, subject.guest.mac)[0]
            frame = decode(subject, captured.data, of_frame)
            judge.add(captured.number, frame, of_frame, connections.guess(frame))
        notes = [capture.fault] if capture.fault else []
        if cut:
            notes.append(f"{cut} frames are cut off in the capture: what it lacks is taken for zeros")
        if short:
            notes.append(f"{short} are shorter than an Ethernet header: they have no verdict")
        summary = Summary(options["pcap"], frames, cut, short, judge.decisions(), tuple(notes))
        if options["as_json"]:
            click.echo(json.dumps(summary_as_json(subject, summary), indent=2))
        else:
            print_summary(subject, summary)
        return not any(found["drop"] for found in summary.verdicts.values())

    def _way(self) -> Way | None:
        if self.options["from_host"]:
            return Way.TO_GUEST
        return {"from": Way.FROM_GUEST, "to": Way.TO_GUEST}.get(self.options["sends"])


def _one_of(capture: Capture, number: int | None) -> Captured:
    """Frame `number`, or the only one. Raises NwfilterHookError: it has no such frame, or several."""
    frames = iter(capture)
    if number is None:
        first = next(frames, None)
        if first is not None and next(frames, None) is None and not capture.fault:
            return first
        if first is not None:
            raise NwfilterHookError(f"{capture.path} has several frames: say --number N or --all")
    else:
        for captured in frames:
            if captured.number == number:
                return captured
    last = f"; {capture.fault}" if capture.fault else ""
    raise NwfilterHookError(f"{capture.path} has no frame{'' if number is None else f' {number}'}{last}")


def _text(given: str) -> str:
    if given != "-":
        return given
    with SystemErrorAs(NwfilterHookError, "standard input"):
        return sys.stdin.buffer.read(1 << 21).decode(errors="replace")


def _sets(given: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in given:
        name, equals, element = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not NAME=ADDRESS", param_hint="--set")
        found[name] = (*found.get(name, ()), element)
    return found
