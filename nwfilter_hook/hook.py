"""
A libvirt hook call: which operation does what, and what a failure means.

In:  argv as libvirt gives it (GUEST OPERATION SUB-OPERATION EXTRA), the domain XML as bytes.
Out: the exit status. Messages go to stderr, which libvirt shows in its error, and to syslog; stdout stays empty,
     since libvirt takes what a hook prints there for a new domain XML.

    operation                   does                                              on failure
    prepare, migrate, restore   checks that everything would compile              1: libvirt refuses
    start, attach               installs in one transaction                       1: the guest isn't started
    reconnect                   verifies, repairs, quarantines what it can't      0: libvirt would kill the guest
    stopped, release            removes                                           0: removed at the next event
    started, others             nothing                                           0

https://libvirt.org/hooks.html. A hook that has nothing to do must cost next to nothing: this module imports os and sys
only, and everything else when there is something to act on.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import Config
    from .host import Host
    from .operations.transaction import Plan

CHECKING = ("prepare", "migrate", "restore")
INSTALLING = ("start", "attach")
REMOVING = ("stopped", "release")
VERIFYING = ("reconnect",)
MAX_BYTES = 8 * 1024 * 1024 + 1

_MARKERS = (b"filterref", b"nwfilter-hook.org/xmlns/")


def main(argv: Sequence[str]) -> int:
    """
    What `hooks/qemu` does: read the domain XML from stdin and run the operation.

    Args:
        argv: program name, guest, operation, sub-operation, extra.

    Returns:
        Exit status.
    """
    if len(argv) < 3:
        print(f"usage: {argv[0]} GUEST OPERATION SUB-OPERATION EXTRA < domain.xml", file=sys.stderr)
        return 2
    guest, operation = argv[1], argv[2]
    data = _read_stdin()
    if operation not in CHECKING + INSTALLING + REMOVING + VERIFYING:
        return 0
    return run(guest, operation, data)


def run(guest: str, operation: str, data: bytes) -> int:
    """
    Do what `operation` asks for.

    Args:
        data: the domain XML.

    Returns:
        Exit status, by the table above.
    """
    fatal = operation in CHECKING + INSTALLING
    try:
        from .config import read_config

        config = read_config()
        if not has_work(operation, data, config):
            return 0
    except Exception as error:  # configuration; every later one is caught below
        return _failed(guest, error, fatal)
    from .base.errors import NwfilterHookError

    if sys.flags.no_site:  # hooks/qemu starts without; lxml needs it
        import site

        site.main()
    try:
        _work(guest, operation, data, config)
    except NwfilterHookError as error:
        return _failed(guest, error, fatal)
    except Exception as error:  # a bug: keep its traceback, and fail as the operation must
        import traceback

        traceback.print_exc()
        return _failed(guest, error, fatal)
    return 0


def has_work(operation: str, data: bytes, config: Config) -> bool:
    """
    Whether there can be something to do, told from the bytes alone: a reference to act on, a default filter, a record
    of this guest, or something left by another, on one of its taps too. Says yes when in doubt.
    """
    wants = bool(config.default_filters) or any(marker in data for marker in _MARKERS)
    declaration = data[:200].lower().partition(b"?>")[0]
    foreign = b"\0" in data or (b"encoding" in declaration and b"utf-8" not in declaration)
    odd = foreign or len(data) >= MAX_BYTES or not data.strip() or b"<domain" not in data
    if operation in CHECKING:
        return wants or odd
    if operation not in REMOVING and (wants or odd):
        return True
    try:
        names = os.listdir(os.path.join(config.state_dir, "domains"))
        taps = os.listdir(os.path.join(config.state_dir, "taps"))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    if odd or b"<uuid" not in data:
        return bool(names)
    lower = data.lower()
    if any(
        name.startswith("~") or name.endswith((".leftover", ".journal")) or name.split(".")[0].encode() in lower
        for name in names
    ):
        return True
    if operation in REMOVING:
        return False
    return any(quote + tap.encode() + quote in data for tap in taps for quote in (b"'", b'"'))


def _read_stdin() -> bytes:
    """Everything, but no more than one byte over what is accepted; libvirt closes its end when it has written."""
    stream = sys.stdin.buffer if sys.stdin is not None else None
    return stream.read(MAX_BYTES) if stream is not None else b""


def _work(guest: str, operation: str, data: bytes, config: Config) -> None:
    from .base.errors import InputError, one_line
    from .host import open_host
    from .operations.lifecycle import check, install, remove

    host = open_host(config, lambda line: report(guest, line), log)
    path = f"domain XML of {one_line(guest)}"
    if operation in REMOVING:
        for uuid in _uuids(host, guest, data, path):
            remove(host, uuid)
        return
    from .domain.parse import parse_domain

    if operation in VERIFYING:
        try:
            domain = parse_domain(data, path, config.default_filters, tolerant=True)
        except InputError as error:
            _keep_or_quarantine(host, guest, data, error)
            raise
        from .operations.reconnect import reconcile

        if domain.problem:
            report(guest, str(domain.problem))
        _tell(guest, reconcile(host, domain, operation))
        return
    domain = parse_domain(data, path, config.default_filters)
    if operation in CHECKING:
        check(host, domain)
    else:
        install(host, domain, operation, fresh=operation == "start")


def _tell(guest: str, planned: Plan | None) -> None:
    if planned is None:
        return
    from .base.errors import quarantine_effect

    quarantined = {binding.tap for binding in planned.record.bindings if binding.quarantined}
    known = {binding.tap for binding in planned.record.bindings}
    for tap, reason in planned.failed:
        if tap in quarantined:
            report(guest, f"{tap}: quarantined, {quarantine_effect(reason)}: {reason}")
        elif tap not in known:
            report(guest, f"{tap}: NOT filtered, and can't be quarantined: {reason}")
    for tap in sorted(known - {tap for tap, _ in planned.failed}):
        report(guest, f"{tap}: its filter was not in force as recorded; repaired")


def _uuids(host: Host, guest: str, data: bytes, path: str) -> list[str]:
    """The guest's UUID; if its XML is of no use, the UUIDs of records under its name."""
    from .base.errors import InputError
    from .domain.parse import parse_identity

    try:
        return [parse_identity(data, path)]
    except InputError as error:
        report(guest, f"{error}; going by the guest's name")
        return [record.uuid for record in host.state.records() if record.guest == guest]


def _keep_or_quarantine(host: Host, guest: str, data: bytes, error: Exception) -> None:
    from .base.errors import NwfilterHookError
    from .operations.reconnect import quarantine_known

    assert isinstance(error, NwfilterHookError)
    for uuid in _uuids(host, guest, data, f"domain XML of {guest}"):
        if quarantine_known(host, uuid, error):
            report(guest, f"quarantined, nothing passes in or out: {error}")


def _failed(guest: str, error: Exception, fatal: bool) -> int:
    text = str(error) or type(error).__name__
    report(guest, text)
    return 1 if fatal else 0


def report(guest: str, line: str) -> None:
    """One line to stderr and to syslog; whatever is in it, it stays one line."""
    import contextlib

    from .base.errors import one_line

    text = one_line(f"{guest}: {line}")
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:  # print() would take stdout instead, which libvirt reads
            print(f"nwfilter-hook: {text}", file=sys.stderr, flush=True)
    log(text)


def log(line: str) -> None:
    """One line to syslog alone: nothing that the person who started this guest has to know."""
    import syslog

    from .base.errors import one_line

    syslog.openlog("nwfilter-hook", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR, one_line(line))
