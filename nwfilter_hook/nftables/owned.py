"""
Tables that live no longer than this process: their owner is an nft that waits for more to do.

In:  one transaction that adds them, with `flags owner` (Linux 5.12), in one line. Out: nothing, they are there.

`nft -i` takes each line of its standard input as a transaction, and ends with it, which is when this process ends in
whatever way. Then the kernel takes the tables away; till then nobody else can flush or delete them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from ..base.errors import NftError
from .netlink import has_table
from .process import Nft

_PATIENCE_S = 5.0


class OwnedTables:
    """
    Tables, given as (family, name), and the nft that owns them. `why` is what they are for, for people.

    Raises:
        NftError: they aren't there within a moment.
    """

    def __init__(self, nft: Nft, text: str, tables: Sequence[tuple[str, str]], why: str) -> None:
        self._process = nft.start(["-i"])
        try:
            self._add(text, tables, why)
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether their owner is."""
        return self._process.poll() is None

    def close(self) -> None:
        """They go."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _add(self, text: str, tables: Sequence[tuple[str, str]], why: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((text + "\n").encode())
            self._process.stdin.flush()
        except OSError as error:
            raise NftError(f"nft -i has ended: {error.strerror}") from error
        end = time.monotonic() + _PATIENCE_S
        while not all(has_table(family, name) for family, name in tables):
            if not self.alive or time.monotonic() > end:
                raise NftError(f"the kernel didn't take {why} (a table with an owner: Linux 5.12)")
            time.sleep(0.005)
