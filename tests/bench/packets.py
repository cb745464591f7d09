"""A bridge with two taps, the first under filter behind many others' map elements, and a program that floods it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.base.errors import Source
from nwfilter_hook.filters.model import FilterRef
from nwfilter_hook.guards import Guard
from nwfilter_hook.nftables.guard import known
from nwfilter_hook.nftables.script import install, render
from nwfilter_hook.nftables.shield import script as shield_script
from nwfilter_hook.operations.compile import compile_reference
from nwfilter_hook.ruleset.model import Attachment, Ruleset
from nwfilter_hook.storage.library import Library
from tests.support.frames import GUEST, OTHER, udp
from tests.support.netns import REPOSITORY, Wire
from tests.unit.compiling import transaction


class FloodedWire:
    """
    The wire.

    Args:
        taps: how many taps are under filter; the one that sends is the last of them.
    """

    def __init__(self, taps: int) -> None:
        self._taps = taps
        self._wire = Wire(("sender", "receiver"))

    def __enter__(self) -> FloodedWire:
        self._wire.__enter__()
        self._directory = tempfile.TemporaryDirectory()
        self._program = Path(self._directory.name, "blast")
        source = Path(__file__).with_name("blast.c")
        subprocess.run(["gcc", "-O2", "-o", self._program, source], check=True)
        self._rulesets = self._compile()
        self._script = transaction(*self._rulesets, counters="drops").text
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.cleanup()
        self._wire.__exit__(kind, error, trace)

    def _compile(self) -> list[Ruleset]:
        library = Library([str(REPOSITORY / "filters")])
        names = [f"vnet{number}" for number in range(self._taps - 1)] + ["sender"]

        def compiled(tap: str) -> Ruleset:
            reference = FilterRef("clean-traffic", {"IP": ("192.0.2.1",)}, Source("bench", 1))
            return compile_reference(reference, tap, Attachment.BRIDGE_PORT, GUEST, library)

        return [compiled(name) for name in names]

    def install(self) -> None:
        """Put all taps under filter."""
        self._wire.apply(self._script)

    def install_guarded(self, *, shield: bool) -> None:
        """All taps, and the guard, mode generated; the shield's table is owned by nobody, which no packet sees."""
        guard = Guard("generated", shield=shield)
        rendered = [render(each, "drops") for each in self._rulesets]
        marked = [replace(each, installed=known(each.installed, Attachment.BRIDGE_PORT, guard)) for each in rendered]
        text = install(marked, fresh=True, counters="drops", guard=guard).text
        if shield:
            text += shield_script(guard).replace("{ flags owner; }", "").replace("; add ", "\nadd ") + "\n"
        self._wire.apply(text)

    def install_by_hand(self) -> None:
        """The least that keeps the sender from being another, as people write it by hand: three rules, no other tap."""
        self._wire.apply(
            "add table bridge by-hand\n"
            "add chain bridge by-hand forward { type filter hook prerouting priority -300; }\n"
            f'add rule bridge by-hand forward iifname "sender" ether saddr != {GUEST} drop\n'
            'add rule bridge by-hand forward iifname "sender" ip saddr != 192.0.2.1 drop\n'
            'add rule bridge by-hand forward iifname "sender" arp saddr ip != 192.0.2.1 drop\n'
        )

    def flush(self) -> None:
        """Take all rules away."""
        self._wire.nft("flush", "ruleset")

    def blast(self, frames: int) -> float:
        """Frames per second of `frames` small legitimate UDP packets."""
        frame = udp(src=GUEST, dst=OTHER, src_ip="192.0.2.1")
        descriptor = self._wire.guests["sender"].fileno()
        os.set_inheritable(descriptor, True)
        done = subprocess.run(
            [self._program, str(descriptor), str(frames)], input=frame, capture_output=True, check=True, close_fds=False
        )
        return frames / (int(done.stdout) / 1e9)
