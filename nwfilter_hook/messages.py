"""
One line to the person and to the journal.
"""

from __future__ import annotations

import sys


def report(guest: str, line: str) -> None:
    """One line to stderr and to syslog; whatever is in it, it stays one line."""
    import contextlib

    from .base.text import one_line

    text = one_line(f"{guest}: {line}")
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:  # print() would take stdout instead, which libvirt reads
            print(f"nwfilter-hook: {text}", file=sys.stderr, flush=True)
    log(text)


def log(line: str) -> None:
    """One line to syslog alone: nothing that the person who started this guest has to know."""
    import syslog

    from .base.text import one_line

    syslog.openlog("nwfilter-hook", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR, one_line(line))
