"""
Whether the guard is on, and how; until the next boot, for which there is nwfilter-hook-guard.service.

    STATE_DIR/guard     JSON, there if it is on: what the configuration said when it was put on

In:  the state directory. Out: a `Guard`; a file that can't be read leaves it on, as the configuration has it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable

from ..base.dataclass import as_dict, from_dict
from ..config import Config
from ..guards import Guard
from ..settings import MODES, UNFILTERED
from .state import State
from .strict import each, tap, text, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "guard"
_MAX_BYTES = 64 * 1024


def configured(config: Config) -> Guard:
    """The guard that the configuration asks for; if it asks for none, of the interfaces that libvirt names."""
    return Guard(
        mode="generated" if config.guard_mode == "off" else config.guard_mode,
        bridges=config.guard_bridges,
        trusted=config.guard_trusted,
        allow=config.guard_allow,
        unfiltered=config.guard_unfiltered,
        shield=config.guard_shield,
    )


def read_guard(directory: str, otherwise: Callable[[], Guard], report: Callable[[str], None]) -> Guard | None:
    """
    The guard; None if it is off.

    Args:
        otherwise: gives the one to go by where the file can't be read.
    """
    path = os.path.join(directory, NAME)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise ValueError("it is not a file of ours")
            return _parse(file.read(_MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):  # who locks the state says what is wrong with it
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        report(f"{path} can't be read: {error}; the guard stays on, as the configuration has it")
        return otherwise()


def write_guard(state: State, guard: Guard | None) -> None:
    """Put down what `read_guard` says from now on; the lock is held. Raises StateError."""
    state.write(NAME, json.dumps(as_dict(guard)) if guard else None)


def _parse(data: bytes) -> Guard:
    """Raises ValueError, TypeError, KeyError, AttributeError."""
    guard = from_dict(
        Guard,
        json.loads(data),
        mode=text,
        bridges=each(tap),
        trusted=each(tap),
        allow=each(_pattern),
        unfiltered=text,
        shield=truth,
        carried=truth,
        fingerprint=text,
    )
    if guard.mode not in MODES[1:] or guard.unfiltered not in UNFILTERED:
        raise ValueError(f"mode {guard.mode!r}, unfiltered {guard.unfiltered!r}")
    return guard


def _pattern(value: Any) -> str:
    """The name of a device, or the beginning of one with a * behind."""
    return text(value) if tap(text(value).removesuffix("*")) else ""
