"""
nwfilter-hook trace: frames of a tap as the kernel judges them, and by which rule.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from ..base.errors import NwfilterHookError
from ..base.text import one_line
from ..operations.trace import Trace, as_json, layer_text
from ..ruleset.evaluate import Way
from ..ruleset.judged import Judged
from ..storage.captures import CaptureWriter
from .common import json_option, open_cli_host
from .complete import names_of
from .options import packet_options, said

RATE = 100
_LOOK_S = 0.25
_SOON_S = 0.05
_WIDTHS = (15, 10, 4, 24)


@click.command()
@click.argument("tap", shell_complete=names_of("tap"))
@click.option("--from-guest", "sends", flag_value="from", help="Only what the guest sends.")
@click.option("--to-guest", "sends", flag_value="to", help="Only what it is to get.")
@click.option("--drops", is_flag=True, help="Only what is dropped.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N frames.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="End after S seconds.")
@click.option(
    "--rate", type=click.IntRange(1, 10_000), default=RATE, show_default=True, metavar="N", help="N a second each way."
)
@click.option("--write", "path", metavar="FILE", help="Write the frames to a capture, too.")
@packet_options
@json_option
def trace(tap: str, **options: Any) -> None:
    """
    Show frames of TAP as the kernel judges them, each with the rule that decides; until Ctrl-C.

    A frame that is described by words (--tcp --dst :443) narrows it down. Nothing is changed about any frame.
    Exit status: 0 ended as asked for, 1 the tap is gone or it can't be traced, 2 wrong usage.
    """
    ways = {"from": (Way.FROM_GUEST,), "to": (Way.TO_GUEST,)}.get(options["sends"], tuple(Way))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ends_by_signals())
        traced = Trace(open_cli_host(readonly=True), tap, ways, said(options), options["rate"])
        stack.callback(traced.tracer.close)
        writer = None
        if options["path"] is not None:
            writer = CaptureWriter(options["path"])
            stack.callback(writer.close)
        run = _Run(traced, options, writer)
        try:
            run.begin()
            run.go()
        except KeyboardInterrupt:
            _forsake_a_full_pipe()
        run.end()
    if run.gone:
        raise NwfilterHookError(f"{tap} is gone")


class _Run:
    """
    One run.

    Attributes:
        gone: it has ended since the tap isn't there any more.
    """

    def __init__(self, traced: Trace, options: dict[str, Any], writer: CaptureWriter | None) -> None:
        self._trace, self._options, self._writer = traced, options, writer
        self._shown = self._dropped = 0
        self._ends = time.monotonic() + options["seconds"] if options["seconds"] else None
        self.gone = False

    def begin(self) -> None:
        """Say what is going on."""
        rate = self._options["rate"]
        _note(
            f"tracing {self._trace.tap} of guest {self._trace.guest}: {rate} frames a second each way at most "
            "(--rate); Ctrl-C ends"
        )

    def go(self) -> None:
        """Until it ends by itself."""
        poll = select.poll()
        poll.register(self._trace.tracer.fileno(), select.POLLIN)
        # a reader that has gone is heard of, though there is nothing to tell it
        with contextlib.suppress(OSError, ValueError):
            poll.register(sys.stdout.fileno(), 0)
        looked = time.monotonic()
        while not self._is_through():
            timeout = _SOON_S if self._trace.tracer.waiting else _LOOK_S
            if self._ends is not None:
                timeout = min(timeout, max(self._ends - time.monotonic(), 0))
            events = dict(poll.poll(timeout * 1000 + 1))
            for judged in self._trace.read():
                self._show(judged)
                if self._is_full():
                    return
            if any(bits & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for bits in events.values()):
                raise BrokenPipeError
            if time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                if not self._trace.tap_is_there:
                    self.gone = True
                    return

    def end(self) -> None:
        """Say what it was."""
        parts = [f"{self._shown} frame{'' if self._shown == 1 else 's'} shown, {self._dropped} dropped"]
        with contextlib.suppress(NwfilterHookError):  # its table goes with the tap
            untold = self._trace.tracer.untold()
            if untold:
                parts.append(
                    f"{untold} more were not traced: more than {self._options['rate']} a second (--rate), or lost"
                )
        _note("; ".join(parts))

    def _is_through(self) -> bool:
        return self._is_full() or (self._ends is not None and time.monotonic() >= self._ends)

    def _is_full(self) -> bool:
        return self._options["count"] is not None and self._shown >= self._options["count"]

    def _show(self, judged: Judged) -> None:
        if self._options["drops"] and judged.passes:
            return
        self._shown += 1
        self._dropped += not judged.passes
        if self._writer is not None:
            self._writer.add(judged.time_us, judged.data, len(judged.data))
        packet = self._trace.described(judged)
        if self._options["as_json"]:
            click.echo(json.dumps(as_json(judged, packet)))
        else:
            click.echo(one_line(_line(judged, packet)))


@contextlib.contextmanager
def _ends_by_signals() -> Iterator[None]:
    """Meanwhile these end it as Ctrl-C does, unless somebody has them ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _forsake_a_full_pipe() -> None:
    """What nobody reads isn't waited for when Python ends, as the manual of `signal` has it."""
    poll = select.poll()
    with contextlib.suppress(OSError, ValueError):
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        if not poll.poll(0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line(judged: Judged, packet: str) -> str:
    deciding = judged.deciding
    seconds, fraction = divmod(judged.time_us, 1_000_000)
    cells = (
        f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{fraction:06}",
        "from-guest" if judged.way is Way.FROM_GUEST else "to-guest",
        judged.verdict,
        (deciding.rule or layer_text(deciding)) if deciding else "(no rule)" if judged.ended else "(not told)",
    )
    layer = f" ({layer_text(deciding)})" if deciding and deciding.rule else ""
    further = "" if judged.ended else "; seen no further"
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, _WIDTHS)) + f"  {packet}{layer}{further}"


def _note(text: str) -> None:
    click.echo(one_line(f"nwfilter-hook: {text}"), err=True)
