"""
The lock of the state directory, waited for in the kernel's queue.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from ..base.errors import StateError


def take_lock(descriptor: int, path: str, wait_s: float) -> None:
    """
    Take the lock, waiting in the kernel's queue for it.

    Fifty hooks that asked again and again, every 5 ms, once kept the kernel from finishing a transaction for a minute
    on a busy machine of two cores. flock() knows no timeout, so a thread waits, with a descriptor of its own: should
    it come too late, the lock is free again when it closes that one.
    """
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import threading  # most never wait

    waiter = os.dup(descriptor)
    taken = threading.Event()

    def wait() -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(waiter, fcntl.LOCK_EX)
            taken.set()
        os.close(waiter)

    threading.Thread(target=wait, daemon=True).start()
    if not taken.wait(wait_s):
        raise StateError(f"{path} is held by another nwfilter-hook for {wait_s:g} s; see `fuser {path}`")
