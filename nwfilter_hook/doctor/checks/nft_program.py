"""nft is there, and new enough."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.errors import NftError
from ..findings import Finding, wrong
from ..patient import Patient

OLDEST = (1, 0, 6)
"""The oldest that the tests run with."""


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong if it isn't."""
    oldest = ".".join(map(str, OLDEST))
    why = "nft puts all rules into the kernel: guests with a filter aren't started, and those that run aren't repaired"
    try:
        version = patient.survey.version()
    except NftError as error:
        yield wrong(str(error), why, "apt install nftables")
        return
    if not version:
        name = patient.host.config.nft
        yield wrong(f"{name} --version doesn't say which version it is", why, "apt install nftables")
    elif tuple(map(int, version.split("."))) < OLDEST:
        why = f"older ones than {oldest} don't know all that rules are made of, or take a transaction for another"
        yield wrong(f"nft is version {version}, older than {oldest}", why, "apt install nftables")
