"""
`nwfilter-hook watch`: everything together, from its start to SIGTERM.

    listener      nf_tables, links, libvirt's status files   ->  drift, queue
    libvirt       events, each new connection, slow poll     ->  queue
    holder        closes devices that no guard in a bridge sees, until somebody has decided about them
    drift         puts back from the records; libvirt isn't asked
    guests-0…3    ask libvirt about a guest, then take the lock

The thread that began mostly waits: it pings systemd's watchdog as long as the others live, says which ports the guard
cuts off (strangers.py), and ends the service when systemd says so, or when another version of the package has been
installed: half of each would be in memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from datetime import datetime, timezone

from .. import __version__, config
from ..base.errors import NwfilterHookError
from ..base.said import FAILED, SERVICE, Said
from ..libvirtd import Libvirt
from ..storage.watching import Drifted, OneService, Resynced, Watching, write_watching
from .drift import Drift
from .followers import NAMED, Followers
from .holder import Holder
from .hosts import Hosts, say
from .libvirt_events import LibvirtEvents
from .listener import Listener
from .queue import Queue, Round
from .shield import Shielding
from .strangers import Strangers
from .systemd import notify, watchdog_s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .exporter import Exporter

_FIRST_LOOK_S = 10.0
"""A libvirtd that doesn't answer keeps nobody from being told that rules are watched."""
_STUCK_S = 10.0
_DRIFT_STUCK_S = 180.0
"""Waiting for the lock, and for nft, has its own bounds below that."""
_STOP_S = 5.0
_TICK_S = 1.0


class Service:
    """
    The service; `run` returns when it has ended.

    Raises:
        ConfigError: the configuration is wrong. StateError: another service runs. NwfilterHookError: libvirt-python is
            missing.
    """

    def __init__(self) -> None:
        host = Hosts().now()
        self._config = host.config
        with host.state.locked():  # makes the directory, too
            self._one = OneService(host.config.state_dir)
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._hang_up = threading.Event()
        self._since = _now()
        self._libvirt_since = self._since
        self._libvirt_said = ""
        self._resynced: Resynced | None = None
        self._drifted: Drifted | None = None
        self._package = _package()
        self._queue = Queue()
        self._shielding = Shielding()
        self._drift = Drift(host.config.verify_s, self._note_drift)
        self._libvirt: LibvirtEvents | None = None
        if host.config.uri != "none":
            self._libvirt = LibvirtEvents(
                host.config.uri, host.config.poll_s, self._queue, self._note_round, self._write
            )
        self._followers = Followers(self._queue, self._connection, self._lost, self._write)
        self._holder = Holder()
        self._strangers = Strangers(host.config.verify_s)
        self._exporter = _exporter(host.config.listen) if host.config.listen != "none" else None
        self._listener = Listener(
            self._drift.committed,
            self._links_changed,
            self._drift.everything,
            self._holder.known,
            self._holder.come,
            self._look_at if self._libvirt else None,
            host.config.status_dir,
        )

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        signal.signal(signal.SIGHUP, lambda *_: self._hang_up.set())
        self._listener.start()
        self._listener.listening.wait(_FIRST_LOOK_S)  # what is put back first is watched from then on
        self._drift.start()
        self._holder.start()
        self._followers.start()
        if self._libvirt:
            self._libvirt.start()
        self._write()
        if self._exporter:
            self._exporter.start()
        self._wait_for_first_look()
        notify(READY=1, STATUS=self._status())
        say(Said(f"watching: {self._status()}", SERVICE))
        self._wait()
        self._end()

    def _wait_for_first_look(self) -> None:
        end = time.monotonic() + _FIRST_LOOK_S
        while time.monotonic() < end and not self._stop.is_set():
            resynced = self._libvirt is None or (self._libvirt.tried.is_set() and not len(self._queue))
            if self._drift.looked.is_set() and resynced:
                return
            self._stop.wait(0.02)

    def _wait(self) -> None:
        watchdog = watchdog_s()
        tick = min(_TICK_S, watchdog / 3) if watchdog else _TICK_S
        hosts = Hosts()
        self._follow_guard(hosts)
        while not self._stop.wait(tick):
            self._follow_guard(hosts)
            fault = self._fault()
            if fault:
                say(Said(f"{fault}; the watchdog isn't told that all is well", FAILED))
            else:
                notify(WATCHDOG=1)
            if self._hang_up.is_set():
                self._hang_up.clear()
                self._followers.forget()
                self._drift.everything()
                if self._libvirt:
                    self._libvirt.look_at_all()
            if _package() != self._package:
                say(Said("another version of the package has been installed: ending, to be started anew", SERVICE))
                return

    def _follow_guard(self, hosts: Hosts) -> None:
        with contextlib.suppress(NwfilterHookError):  # drift.py, which needs the host as well, says so
            host = hosts.now()
            if self._shielding.follow(host):
                self._write()
            self._strangers.follow(host)

    def _fault(self) -> str:
        now = time.monotonic()
        if now - self._listener.alive_at > _STUCK_S:
            return "nothing has been heard of the kernel for too long"
        if self._drift.busy_since is not None and now - self._drift.busy_since > _DRIFT_STUCK_S:
            return "rules are being looked at for too long"
        return ""

    def _end(self) -> None:
        notify(STOPPING=1)
        self._listener.stop()
        self._holder.stop(_STOP_S)
        self._followers.stop(_STOP_S)
        self._drift.stop(_STOP_S)
        self._shielding.end()
        self._one.release()
        say(Said("ended; the rules stay in force", SERVICE))

    # --- between the threads ------------------------------------------------------------------------------------------

    def _connection(self) -> Libvirt | None:
        return self._libvirt.libvirt if self._libvirt else None

    def _lost(self, libvirt: Libvirt) -> None:
        if self._libvirt:
            self._libvirt.lost(libvirt)

    def _links_changed(self, names: set[str]) -> None:
        self._drift.link_changed(names)
        self._strangers.changed()

    def _look_at(self, names: list[str]) -> None:
        for name in names:
            self._queue.put(f"{NAMED}{name}")

    def _note_round(self, found: Round) -> None:
        ms = round((time.monotonic() - found.began) * 1000)
        first = self._resynced is None
        self._resynced = Resynced(_now(), found.guests, found.failed, ms)
        if first or found.failed:
            failed = f", {found.failed} of which couldn't be followed" if found.failed else ""
            say(Said(f"{found.guests} guests looked at in {ms} ms{failed}", FAILED if failed else SERVICE))
        self._write()

    def _note_drift(self, drifted: Drifted) -> None:
        self._drifted = drifted
        self._write()

    def _status(self) -> str:
        libvirt = self._libvirt.said if self._libvirt else "none"
        guests = f", {self._resynced.guests} guests" if self._resynced else ""
        return f"rules and devices; libvirt: {libvirt}{guests}"

    def _write(self) -> None:
        with self._writing:
            said = self._libvirt.said if self._libvirt else "none"
            if said != self._libvirt_said:
                self._libvirt_said, self._libvirt_since = said, _now()
                if self._libvirt and said != "connected":
                    self._followers.forget()
            write_watching(
                self._config.state_dir,
                Watching(
                    pid=os.getpid(),
                    version=__version__,
                    since=self._since,
                    running=True,
                    libvirt=said,
                    libvirt_since=self._libvirt_since,
                    resynced=self._resynced,
                    drifted=self._drifted,
                    shield=self._shielding.up,
                    refused=self._followers.refused(),
                ),
            )
            notify(STATUS=self._status())


def watch() -> None:
    """Be the service. Raises NwfilterHookError: it can't begin."""
    Service().run()


def _exporter(listen: str) -> Exporter:
    from .exporter import Exporter

    return Exporter(listen)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _package() -> tuple[int, ...]:
    """What tells this version's files from another's."""
    try:
        status = os.stat(config.__file__)
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size
