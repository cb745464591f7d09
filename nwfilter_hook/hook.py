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

A wrong configuration is a failure for the first two rows; the others go by another one (storage.configuration).
https://libvirt.org/hooks.html. A hook that has nothing to do must cost next to nothing: this module imports os and sys
only, and everything else when there is something to act on.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .config import Config

CHECKING = ("prepare", "migrate", "restore")
INSTALLING = ("start", "attach")
REMOVING = ("stopped", "release")
VERIFYING = ("reconnect",)
MAX_BYTES = 8 * 1024 * 1024 + 1
MAX_MEMORY = 512 * 1024 * 1024

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
    from .config import read_config  # noqa: F401 - before the XML is read: if this is broken the launcher needs it

    guest, operation = argv[1], argv[2]
    data = _read_stdin()
    if operation not in CHECKING + INSTALLING + REMOVING + VERIFYING:
        return 0
    return run(guest, operation, data, bound=_bound_memory)


def run(guest: str, operation: str, data: bytes, *, bound: Callable[[], None] = lambda: None) -> int:
    """
    Do what `operation` asks for.

    Args:
        data: the domain XML.
        bound: called before there is work.

    Returns:
        Exit status, by the table above.
    """
    fatal = operation in CHECKING + INSTALLING
    try:
        config = _configuration(guest, operation, fatal)
        if not has_work(operation, data, config) or (operation in VERIFYING and _unchanged(guest, data, config)):
            return 0
    except Exception as error:  # configuration; every later one is caught below
        return _failed(guest, operation, data, error, fatal)
    from .base.errors import NwfilterHookError

    bound()
    try:
        from .host import open_host
        from .messages import log
        from .operations.dispatch import run_operation

        run_operation(
            open_host(config, lambda line: _report(guest, operation, data, line), log), guest, operation, data
        )
    except NwfilterHookError as error:
        return _failed(guest, operation, data, error, fatal)
    except MemoryError:
        pass  # said below, when what was in the way is free again
    except Exception as error:  # a bug: keep its traceback, and fail as the operation must
        import traceback

        traceback.print_exc()
        return _failed(guest, operation, data, error, fatal)
    else:
        return 0
    message = f"more than {MAX_MEMORY >> 20} MiB of memory are needed: too many interfaces, rules or values"
    return _failed(guest, operation, data, NwfilterHookError(message), fatal)


def _bound_memory() -> None:
    """What one guest asks for takes no more than this from the host; nft, which is started then, is held to it too."""
    import contextlib
    import resource

    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bound = MAX_MEMORY if hard == resource.RLIM_INFINITY else min(hard, MAX_MEMORY)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


def _configuration(guest: str, operation: str, fatal: bool) -> Config:
    """The configuration; where the guest runs already and must be looked after, another one if it is wrong."""
    from .config import read_config

    try:
        return read_config()
    except Exception as error:
        if fatal:
            raise
        from .base.said import CONFIGURATION, Said
        from .messages import report
        from .storage.configuration import fall_back

        found = fall_back()
        if found is None:
            raise
        config, which = found
        report(guest, Said(f"{error}; {which}", CONFIGURATION), operation=operation)
        return config


def has_work(operation: str, data: bytes, config: Config) -> bool:
    """
    Whether there can be something to do, told from the bytes alone: a reference to act on, a default filter, a record
    of this guest, or something left by another, on one of its taps too; or interfaces that the guard is to know, where
    it is on. Says yes when in doubt.
    """
    wants = bool(config.defaults or config.floors) or any(marker in data for marker in _MARKERS)
    declaration = data[:200].lower().partition(b"?>")[0]
    foreign = b"\0" in data or (b"encoding" in declaration and b"utf-8" not in declaration)
    odd = foreign or len(data) >= MAX_BYTES or not data.strip() or b"<domain" not in data
    if operation in CHECKING:
        return wants or odd
    if operation not in REMOVING:
        guarded = b"<interface" in data and os.path.exists(os.path.join(config.state_dir, "guard"))
        if wants or odd or guarded:
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


def _unchanged(guest: str, data: bytes, config: Config) -> bool:
    from .operations.unchanged import is_unchanged

    return is_unchanged(config, guest, data)


def _read_stdin() -> bytes:
    """Everything, but no more than one byte over what is accepted; libvirt closes its end when it has written."""
    stream = sys.stdin.buffer if sys.stdin is not None else None
    return stream.read(MAX_BYTES) if stream is not None else b""


def _report(guest: str, operation: str, data: bytes, line: str) -> None:
    """To the person and the journal; what the line itself doesn't say of the guest, its XML does."""
    from .base.said import about
    from .domain.concerned import concerned
    from .messages import report

    report(guest, about(line, **concerned(data, line)), operation=operation)


def _count_refusal(operation: str, error: Exception) -> None:
    """For metrics, where the configuration says where to."""
    import contextlib

    from .config import read_config
    from .storage.tallies import REFUSED, Tallies

    with contextlib.suppress(Exception):
        Tallies(read_config().state_dir).add(REFUSED, operation, type(error).__name__)


def _failed(guest: str, operation: str, data: bytes, error: Exception, fatal: bool) -> int:
    from .base.said import FAILED, REFUSED, Said

    if fatal:
        _count_refusal(operation, error)
    _report(guest, operation, data, Said(str(error) or type(error).__name__, REFUSED if fatal else FAILED))
    return 1 if fatal else 0
