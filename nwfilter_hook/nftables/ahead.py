"""
What a transaction has to find in the kernel, so that no frame slips through while it is committed.

The kernel looks an element up in a map as it is now, but runs a chain's rules as they were when the frame came to the
hook (genbit in nft_do_chain, net/netfilter/nf_tables_core.c). So a frame that came before the commit, and whose
interface has got its element meanwhile, finds its chain as it was before: empty, if it wasn't there. About one in fifty
taps that were plugged under a flood let one frame through (Linux 6.18). Where the guard is on, nothing may pass before:
so a new chain is there a transaction earlier, and drops. What is put back after somebody has flushed it was open until
then, and comes in one.

In:  a transaction. Out: the one before it is carried out, and taken back if the transaction fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ..base.errors import NftError
from .commands import Operation, Script
from .netlink import read_chain, read_chains

_FEW = 8


@contextlib.contextmanager
def prepared(transaction: Script, run: Callable[[Script], int]) -> Iterator[int]:
    """
    Around what carries `transaction` out; gives the number of changes to the kernel until then.

    Args:
        run: carries a script out, and says how many changes that were. Raises NftError.

    Raises:
        NftError: the kernel can't be asked, or refuses.
    """
    before = _before(transaction)
    changes = run(before) if before.operations else 0
    try:
        yield changes
    except NftError as error:
        if changes and not error.unsure:
            with contextlib.suppress(NftError):
                run(_undone(before))
        raise


def _before(transaction: Script) -> Script:
    new = _absent(transaction.first)
    if not new:
        return Script(())
    operations = [Operation("add", "table", "bridge")]
    for name in new:
        operations.append(Operation("add", "chain", "bridge", name))
        operations.append(Operation("add", "rule", "bridge", name, value="drop"))
    return Script(tuple(operations))


def _undone(before: Script) -> Script:
    chains = [each.name for each in before.operations if each.kind == "chain"]
    return Script(tuple(Operation(verb, "chain", "bridge", name) for name in chains for verb in ("flush", "delete")))


def _absent(names: tuple[str, ...]) -> list[str]:
    if len(names) > _FEW:
        there = read_chains("bridge")
        return [name for name in names if name not in there]
    return [name for name in names if not read_chain("bridge", name)]
