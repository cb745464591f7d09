"""
What a service tells systemd (Type=notify): sd_notify(3), without its library.
"""

from __future__ import annotations

import contextlib
import os
import socket


def notify(**said: object) -> None:
    """Tell it, e.g. READY=1; nothing happens where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    text = "".join(f"{name}={value}\n" for name, value in said.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        door.connect("\0" + address[1:] if address[0] == "@" else address)
        door.send(text.encode())


def watchdog_s() -> float | None:
    """How often it wants to hear that we live; None if it doesn't."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 1_000_000
    except (KeyError, ValueError):
        return None
