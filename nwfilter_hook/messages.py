"""
One line to the person and to the journal; to syslog where there is no journal.

The journal gets fields beside the words, so that `journalctl NWFILTER_TAP=vnet0` finds what concerns a tap:
NWFILTER_GUEST, _UUID, _TAP, _FILTER, _OPERATION, each as often as there are values; MESSAGE_ID for the kind; PRIORITY.
Its protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL
"""

from __future__ import annotations

import sys

from .base.said import Said, about, kind_of, worded

JOURNAL = "/run/systemd/journal/socket"
IDENTIFIER = "nwfilter-hook"
_WAIT_S = 1.0
"""A journal that doesn't read holds no guest up for longer."""
_DAEMON = 3 << 3
_MAX_VALUES = 64
_MAX_BYTES = 48 * 1024


def report(guest: str, line: str, **fields: str) -> None:
    """
    One line to stderr and to the journal; whatever is in it, it stays one line.

    Args:
        fields: whom it is about, if the line itself doesn't say.
    """
    import contextlib

    from .base.text import one_line

    said = about(worded(f"{guest}: {line}", line), guest=guest, **fields)
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None and not said.kind.quiet:  # print() would take stdout instead, which libvirt reads
            print(f"nwfilter-hook: {one_line(said)}", file=sys.stderr, flush=True)
    log(said)


def log(line: str) -> None:
    """One line to the journal alone: nothing that the person who started this guest has to know."""
    if not to_journal(line):
        import syslog

        from .base.text import one_line

        syslog.openlog(IDENTIFIER, syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(kind_of(line).priority, one_line(line))


def to_journal(line: str) -> bool:
    """Whether there is a journal; it has the line then, unless it doesn't read."""
    import contextlib
    import socket

    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        door.settimeout(_WAIT_S)
        door.connect(JOURNAL)
        with contextlib.suppress(socket.timeout):
            door.sendall(entry(line))
        return True
    return False


def entry(line: str) -> bytes:
    """The line as the journal takes it."""
    import os

    from .base.text import one_line

    kind = kind_of(line)
    found = [
        ("MESSAGE", line),
        ("PRIORITY", str(kind.priority)),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        ("SYSLOG_FACILITY", str(_DAEMON >> 3)),
        ("SYSLOG_PID", str(os.getpid())),
    ]
    if kind.id:
        found += [("MESSAGE_ID", kind.id), ("NWFILTER_KIND", kind.name)]
    for name, values in line.fields.items() if isinstance(line, Said) else ():
        found += [(f"NWFILTER_{name.upper()}", value) for value in values[:_MAX_VALUES]]
    text = "".join(f"{name}={one_line(value)}\n" for name, value in found)
    return text.encode(errors="replace")[:_MAX_BYTES]
