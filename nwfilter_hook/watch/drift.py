"""
What others do to our rules, and what becomes of our devices: seen, put back from the records, and told.

In:  commits of the kernel (listener.py), names of links that have changed.
Out: kernel and records are one again (operations/repair.py); a line that says who did what, and how long it took.

A hook's own transaction looks like anybody's. We look under the lock, so what a hook has begun is done and written down
by then, and nothing differs: only what isn't as recorded is put back. What was looked at after a commit needs no look
because of that commit: so ours cause none.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import datetime, timezone

from ..base.dataclass import replace
from ..base.errors import NwfilterHookError
from ..base.said import DEVICE, DRIFT, FAILED, REPAIRED, Kind, Said
from ..commits import Commit
from ..host import Host
from ..operations.repair import Repair, repair
from ..operations.verify import GUARD
from ..storage.watching import Drifted
from .hosts import Hosts, say
from .learned import Learned
from .samples import Samples

_SHOWN = 5
_ROUNDS = 3
_RETRY_S = (1.0, 5.0, 20.0, 60.0)
_LINK_SETTLES_S = 0.03
"""A device that is moved to another bridge is in none for a moment."""
_WHO_S = 0.3
"""The kernel tells who it was at the end of what may be many events."""


class Drift:
    """
    One thread that looks and puts back.

    Args:
        verify_s: how often it looks at everything though nothing told it to.
        changed: called with what was put back.
    """

    def __init__(self, verify_s: float, changed: Callable[[Drifted], None]) -> None:
        self._verify_s = verify_s
        self._changed = changed
        self._condition = threading.Condition()
        self._taps: set[str] = set()
        self._links: set[str] = set()
        self._shared = False
        self._everything = True  # at the start
        self._flushed = False
        self._latest = 0
        self._began = self._due = time.monotonic()
        self._suspects: list[Commit] = []
        self._open = False
        self._clean: tuple[int, frozenset[str] | None] = (0, frozenset())
        self._failures = 0
        self._stopping = False
        self._learned = Learned()
        self._samples = Samples()
        self.looked = threading.Event()
        """It has looked once."""
        self.busy_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="drift", daemon=True)

    def start(self) -> None:
        """From now on it works."""
        self._thread.start()

    def stop(self, wait_s: float) -> None:
        """It ends what it does and begins nothing, if that takes no longer."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(wait_s)

    # --- what to look at ----------------------------------------------------------------------------------------------

    def committed(self, commit: Commit) -> None:
        """Somebody has changed something in nf_tables."""
        generation, taps = self._clean
        with self._condition:
            if commit.generation and self._open:  # the end of what was told before
                self._open = False
                self._latest = max(self._latest, commit.generation)
                self._suspects.append(commit)
                self._condition.notify_all()
            if not commit.touches:
                return
            known = commit.generation and commit.generation <= generation
            if known and (taps is None or (commit.taps <= taps and not commit.shared and not commit.everything)):
                return
            self._open = not commit.generation
            if commit.generation:
                self._suspects.append(commit)
            self._latest = max(self._latest, commit.generation)
            self._taps |= commit.taps
            self._shared |= commit.shared
            self._flushed |= commit.everything
            self._wake(0.0)

    def link_changed(self, names: Iterable[str]) -> None:
        """Devices of these names came, went, or moved."""
        with self._condition:
            self._links.update(names)
            self._wake(_LINK_SETTLES_S)

    def everything(self) -> None:
        """Look at all there is."""
        with self._condition:
            self._everything = True
            self._wake(0.0)

    def _wake(self, delay_s: float) -> None:
        now = time.monotonic()
        if not self._due:
            self._began, self._due = now, now + delay_s
        self._due = min(self._due, now + delay_s)
        self._condition.notify_all()

    # --- look ---------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        hosts = Hosts()
        verified = 0.0
        while True:
            with self._condition:
                while not self._stopping:
                    now = time.monotonic()
                    due = min(self._due or now + 3600, verified + self._verify_s, self._learned.due)
                    if due <= now:
                        break
                    self._condition.wait(due - now)
                if self._stopping:
                    return
                told, self._due = bool(self._due), 0.0
                if now >= verified + self._verify_s:
                    self._everything, told, verified = True, True, now
                taps, links, shared = self._taps, self._links, self._shared
                everything = self._everything or self._flushed
                self._taps, self._links, self._shared = set(), set(), False
                self._everything = self._flushed = False
                began = self._began if taps or links or shared else now
            self.busy_since = now
            try:
                host = hosts.now()
                if told:
                    self._look(host, None if everything else taps | _recorded(host, links), shared, began)
                self._learned.note(host)
                self._failures = 0
            except NwfilterHookError as error:
                self._again(str(error))
            except Exception as error:  # a bug
                traceback.print_exc()
                self._again(f"{type(error).__name__}: {error}")
            self.busy_since = None
            self.looked.set()

    def _again(self, why: str) -> None:
        delay = _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
        self._failures += 1
        say(Said(f"the rules can't be looked at, which is tried again in {delay:g} s: {why}", FAILED))
        with self._condition:
            self._everything = True
            self._wake(delay)

    def _look(self, host: Host, taps: set[str] | None, shared: bool, began: float) -> None:
        if taps is not None and shared:
            taps |= {GUARD, *self._samples.taps(host)}
        if taps is not None and not taps:
            return
        repairs: dict[str, Repair] = {}
        first = generation = host.backend.generation()
        for _ in range(_ROUNDS):
            generation = host.backend.generation()
            found = repair(host, taps)
            if not found:
                self._clean = generation, None if taps is None else frozenset(taps)
                break
            repairs.update({each.difference.tap: each for each in found})
            if any(each.failed for each in found):
                break
            if shared:
                taps, shared = None, False
        self._samples.cover(host, None if taps is None else taps - {GUARD})
        with self._condition:
            if repairs and self._open:
                self._condition.wait(_WHO_S)
            # what came after the first look is our own, or will be looked at
            suspects = [each for each in self._suspects if each.generation <= first]
            self._suspects = [each for each in self._suspects if each.generation > generation]
            if taps is None and not self._open and self._latest <= self._clean[0]:  # seen since, our own among them
                self._taps, self._shared, self._flushed = set(), False, False
                if not (self._links or self._everything):
                    self._due = 0.0
        for each in repairs.values():
            if not each.difference.altered:  # a device's doing, nobody has touched the rules
                say(_said(each, DEVICE))
        if any(each.difference.altered for each in repairs.values()):
            self._tell([each for each in repairs.values() if each.difference.altered], suspects, began)
        if repairs:
            self._learned.give_back(host, [tap for tap in repairs if tap != GUARD])
        if any(each.failed for each in repairs.values()):
            raise NwfilterHookError("not everything could be put back")

    def _tell(self, repairs: list[Repair], suspects: list[Commit], began: float) -> None:
        ms = round((time.monotonic() - began) * 1000)
        who = tuple(dict.fromkeys(f"{each.process} ({each.thread})" for each in suspects if each.process))
        failed = any(each.failed for each in repairs)
        what = tuple(_line(each) for each in repairs[:_SHOWN])
        by = f" by {', '.join(who)}" if who else ""
        done = f"NOT all put back after {ms} ms" if failed else f"all as recorded again {ms} ms later"
        of_taps = tuple(each.difference.tap for each in repairs if each.difference.tap != GUARD)
        say(Said(f"{_whose(repairs)} were changed{by}; {done}", DRIFT, tap=of_taps))
        for each in repairs[:_SHOWN]:
            say(_said(each, FAILED if each.failed else REPAIRED))
        if len(repairs) > _SHOWN:
            say(Said(f"and {len(repairs) - _SHOWN} more", DRIFT))
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        taps = sum(each.difference.tap != GUARD for each in repairs)
        self._changed(Drifted(at, who, taps, what, None if failed else ms))


def _whose(repairs: list[Repair]) -> str:
    count = sum(each.difference.tap != GUARD for each in repairs)
    taps = f"the rules of {count} tap{'' if count == 1 else 's'}"
    if count == len(repairs):
        return taps
    return f"the guard and {taps}" if count else "the rules of the guard"


def _line(each: Repair) -> str:
    """As Repair.line, but short: of a flushed ruleset everything is missing."""
    texts = each.difference.texts
    if len(texts) > _SHOWN:
        texts = (*texts[: _SHOWN - 1], f"and {len(texts) - _SHOWN + 1} things more")
    return replace(each, difference=replace(each.difference, texts=texts)).line


def _said(each: Repair, kind: Kind) -> Said:
    difference = each.difference
    return Said(_line(each), kind, guest=difference.guest, uuid=difference.uuid, tap=difference.tap)


def _recorded(host: Host, names: Iterable[str]) -> set[str]:
    return {name for name in names if host.state.owner(name) is not None}
