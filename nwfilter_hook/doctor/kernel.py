"""
How the running kernel was made: config symbols.

In:  /proc/config.gz, or /boot/config-RELEASE. Out: what each symbol is.
"""

from __future__ import annotations

import contextlib
import os


def read_symbols() -> dict[str, str]:
    """By symbol "y", "m" or another value; of those that aren't set none. {} if this kernel doesn't tell."""
    lines = _config().splitlines()
    pairs = (line.partition("=") for line in lines if line.startswith("CONFIG_"))
    return {name: value for name, _, value in pairs}


def _config() -> str:
    with contextlib.suppress(OSError, EOFError):
        import gzip

        with gzip.open("/proc/config.gz", "rt", encoding="utf-8", errors="replace") as file:
            return file.read()
    with (
        contextlib.suppress(OSError),
        open(f"/boot/config-{os.uname().release}", encoding="utf-8", errors="replace") as file,
    ):
        return file.read()
    return ""


def command_for(symbol: str, module: str, symbols: dict[str, str]) -> str:
    """What brings it into this kernel; "" if only another kernel has it."""
    can_load = bool(module) and symbols.get(symbol, "m" if not symbols else "n") == "m"
    return f"modprobe {module}" if can_load else ""


def explain(symbol: str, symbols: dict[str, str]) -> str:
    """How it stands with the symbol."""
    if not symbols:
        return f"it lacks {symbol}, or the module isn't loaded"
    value = symbols.get(symbol)
    if value is None:
        return f"it was made without {symbol}"
    return f"it has {symbol}={value}, and doesn't offer it: is the module there, and allowed to be loaded?"
