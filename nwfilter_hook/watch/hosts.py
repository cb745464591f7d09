"""
The host as it is now, for one thread that lives long: the configuration is read when it is needed, filters again when
their files have changed.

In:  the configuration file.
Out: a `Host` for each piece of work. Lines go to the journal.
"""

from __future__ import annotations

import os
import sys

from ..base.dataclass import replace
from ..base.errors import ConfigError
from ..base.said import CONFIGURATION, Said, kind_of
from ..base.text import one_line
from ..config import Config, read_config
from ..host import Host, open_host
from ..messages import log, to_journal
from ..storage.configuration import fall_back


def say(line: str) -> None:
    """One line to the journal, else to syslog; and to standard error, unless that leads to the journal, too."""
    by_systemd = "JOURNAL_STREAM" in os.environ
    there = to_journal(line)
    if not (by_systemd and there) and not kind_of(line).quiet:
        print(f"nwfilter-hook: {one_line(line)}", file=sys.stderr, flush=True)
    if not by_systemd and not there:
        log(line)


class Hosts:
    """Makes hosts for one thread."""

    def __init__(self) -> None:
        self._last: Host | None = None
        self._fault = ""

    def now(self) -> Host:
        """
        The host.

        Raises:
            ConfigError: the configuration is wrong, and there is none to go by instead.
        """
        host = open_host(self._config(), say)
        last, self._last = self._last, host
        if last and last.library.directories == host.library.directories and last.library.is_current():
            self._last = replace(host, library=last.library)
        return self._last

    def _config(self) -> Config:
        try:
            config, fault = read_config(), ""
        except ConfigError as error:
            found = fall_back()
            if found is None:
                raise
            config, fault = found[0], f"{error}; {found[1]}"
        if fault and fault != self._fault:
            say(Said(fault, CONFIGURATION))
        self._fault = fault
        return config
