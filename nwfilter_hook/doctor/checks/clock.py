"""The clock: it isn't behind what is known to have happened, and is kept right."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator

from ..findings import Finding, hint, wrong
from ..patient import Patient

_ALLOWED_S = 5.0
_ERROR = 5  # TIME_ERROR of adjtimex(2): nobody keeps the clock


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: our program or a record is from the future. A hint: nobody keeps the clock right."""
    now = time.time()
    why = "which of learned addresses is the oldest, and since when a tap has its rules, is told by the clock"
    known = {f"the record of {each.guest}": patient.host.state.written_s(each.uuid) for each in patient.records}
    known["nwfilter-hook itself"] = os.stat(__file__).st_mtime
    late = {what: at for what, at in known.items() if at > now + _ALLOWED_S}
    if late:
        what, at = max(late.items(), key=lambda each: each[1])
        yield wrong(f"the clock is behind: {what} was written {at - now:.0f} s from now", why, "timedatectl")
    if _is_kept() is False:
        yield hint("nothing keeps the clock right", why, "apt install systemd-timesyncd")


def _is_kept() -> bool | None:
    """None if it can't be told."""
    library = ctypes.CDLL(None, use_errno=True)
    answer = library.adjtimex(ctypes.create_string_buffer(512))  # struct timex, no modes: it only asks
    return None if answer < 0 else answer != _ERROR
