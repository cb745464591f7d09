"""
The trace of one tap: a table of our own that marks its frames for the kernel to tell of, and what the kernel tells.

In:  what the tap has in the kernel, which frames, how many a second.
Out: `Judged` after `Judged`.

The table goes with this process, however that ends (owned.py). It stands before all others, accepts everything and
changes no frame. It has a name for each process, nwfilter-trace-PID, so that several can trace.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Sequence
from typing import Callable

from ..backend import Installed
from ..base.errors import NftError
from ..network.netlink import NETFILTER, Netlink, Overrun
from ..ruleset.evaluate import Way
from ..ruleset.judged import Judged, Sought, Tracer
from ..ruleset.model import AFTER, Attachment, Ruleset, Stage
from .expressions import conditions
from .frame_log import FrameLog
from .netlink import read_counted, read_places
from .owned import OwnedTables
from .process import Nft
from .trace_frames import PATIENCE_S, Frames, Tap
from .trace_messages import GROUP, Headers, parse_told

_PRIORITY = -1000
_BUFFER = 8 << 20
_BEGINNINGS = {"traced-from": Way.FROM_GUEST, "traced-to": Way.TO_GUEST}


class NftTracer(Tracer):
    """
    See the module.

    Raises:
        NftError: nft refuses the table, or it isn't there within a moment.
    """

    def __init__(self, nft: Nft, installed: Installed, sought: Sought) -> None:
        self.table = f"nwfilter-trace-{os.getpid()}"
        self._seen = 0
        self._places: dict[tuple[str, int], str] = {}
        stages = frozenset(_stages(installed))
        hooks = [each for way in sought.ways for each in _hooks(installed.tap, sought.attachment, stages, way)]
        self._families = tuple(dict.fromkeys(family for family, *_ in hooks))
        ruleset = Ruleset(installed.tap, sought.attachment, (), ())

        def script(group: int | None) -> str:
            return "; ".join(_script(self.table, hooks, ruleset, sought, group))

        with contextlib.ExitStack() as stack:
            try:
                self._events = stack.enter_context(Netlink(NETFILTER, (GROUP,)))
                self._events.enlarge(_BUFFER)
            except OSError as error:
                raise NftError(f"the kernel doesn't tell what it traces: {error.strerror}") from error
            self._log = _open_log(nft, stack, script)
            text = script(self._log.group if self._log else None)
            tables = [(family, self.table) for family in self._families]
            self._owned = OwnedTables(nft, text, tables, "the table that traces")
            stack.callback(self._owned.close)
            tap = Tap(installed.tap, sought.index, stages)
            self._frames = Frames(tap, self.table, _BEGINNINGS, self._rule, self._see)
            self._closing = stack.pop_all()

    def fileno(self) -> int:
        return self._events.fileno()

    @property
    def waiting(self) -> bool:
        return self._frames.waiting or (self._log is not None and self._log.waiting)

    def read(self) -> list[Judged]:
        found: list[Judged] = []
        while select.select([self._events], [], [], 0)[0]:
            try:
                messages = self._events.events()
            except Overrun:
                continue  # what is lost is counted, see untold
            except OSError as error:
                raise NftError(f"the kernel's trace can't be read: {error.strerror}") from error
            now = time.monotonic()
            for told in map(parse_told, messages):
                if told is not None:
                    found += self._frames.add(told, now)
        if not self._owned.alive:
            raise NftError("the trace has ended: its nft was killed")
        return found + self._frames.expire(time.monotonic()) + self._untold_frames()

    def untold(self) -> int:
        counted = sum(sum(read_counted(family, self.table).values()) for family in self._families)
        return max(counted - self._frames.begun - self._seen, 0)

    def close(self) -> None:
        self._closing.close()

    # --- what frames need ---------------------------------------------------------------------------------------------

    def _rule(self, family: str, handle: int) -> str:
        if (family, handle) not in self._places:
            found = read_places(family)
            self._places.update({(family, number): _deciding(comment) for number, (_, comment) in found.items()})
        return self._places.get((family, handle), "")

    def _see(self, chain: str, headers: Headers) -> tuple[int, bytes, bool]:
        data = self._log.take(chain, headers) if self._log else None
        return _now_us(), headers.frame() if data is None else data, data is not None

    def _untold_frames(self) -> list[Judged]:
        """
        Those that there were, and of which the trace says nothing: nf_tables_trace.c gives up where a header that
        should be there isn't, and of a tag at a device's egress.
        """
        late = self._log.forsaken(PATIENCE_S) if self._log else []
        self._seen += len(late)
        return [
            Judged(_BEGINNINGS[chain], _now_us(), data, True, (), False) for chain, data in late if chain in _BEGINNINGS
        ]


def _now_us() -> int:
    return time.time_ns() // 1000


def _deciding(comment: str) -> str:
    """Of a rule's comment (ruleset.model.Rule), what may have decided."""
    return comment.partition(AFTER)[0]


def _open_log(nft: Nft, stack: contextlib.ExitStack, script: Callable[[int | None], str]) -> FrameLog | None:
    """
    The kernel's log, if it has one.

    Raises:
        NftError: nft refuses the table without it, too.
    """
    try:
        log = FrameLog()
    except OSError:
        log = None
    if log is not None:
        if not nft.run(["--check", "-f", "-"], script(log.group)).status:
            stack.callback(log.close)
            return log
        log.close()
    ran = nft.run(["--check", "-f", "-"], script(None))
    if ran.status:
        raise NftError(f"nft refuses to trace: {(ran.err.strip().splitlines() or ['no message'])[0]}")
    return None


def _stages(installed: Installed) -> list[Stage]:
    names = installed.names("chain")
    return [stage for stage in Stage if f"{stage.value}/{installed.tap}" in names]


def _hooks(tap: str, attachment: Attachment, stages: frozenset[Stage], way: Way) -> list[tuple[str, str, str, str]]:
    """Family, chain, hook and selector of where frames begin that go this way, before any rule of ours sees them."""
    sends = way is Way.FROM_GUEST
    chain = "traced-from" if sends else "traced-to"
    at_device = attachment is not Attachment.BRIDGE_PORT
    if at_device or (sends and Stage.INGRESS in stages):
        hook = "egress" if sends is (attachment is Attachment.MACVTAP) else "ingress"
        return [("netdev", chain, f'{hook} device "{tap}"', "")]
    hook, selector = ("prerouting", "iifname") if sends else ("postrouting", "oifname")
    return [("bridge", chain, hook, f'{selector} "{tap}" ')]


def _script(
    table: str,
    hooks: Sequence[tuple[str, str, str, str]],
    ruleset: Ruleset,
    sought: Sought,
    group: int | None,
) -> list[str]:
    """The transaction; a frame that meets one of the conditions doesn't come to the next."""
    parts = [f"add table {family} {table} {{ flags owner; }}" for family in dict.fromkeys(each[0] for each in hooks)]
    for family, chain, hook, selector in hooks:
        log = "" if group is None else f'log prefix "{chain}" group {group} '
        mark = f"counter limit rate {sought.rate}/second burst {sought.rate} packets {log}meta nftrace set 1"
        place = f"{family} {table} {chain}"
        parts += [f"add chain {place}", f"add rule {place} {mark}"]
        base = f"{family} {table} at-{chain}"
        parts.append(f"add chain {base} {{ type filter hook {hook} priority {_PRIORITY}; policy accept; }}")
        stage = Stage.FROM_L2 if chain == "traced-from" else Stage.TO_L2
        for matches in sought.wanted or ((),):
            parts += [
                f"add rule {base} {selector}{text}{' ' if text else ''}goto {chain}"
                for text in conditions(ruleset, stage, matches)
            ]
    return parts
