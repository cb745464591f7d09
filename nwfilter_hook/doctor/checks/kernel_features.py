"""The kernel can do what rules need: modules and config symbols, by name."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.errors import MissingFeature, NftError
from ..findings import Finding, hint, wrong
from ..kernel import command_for, explain, read_symbols
from ..patient import Patient

_NEED_CONNECTIONS = ("count", "zones")


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong if a guest that runs or is defined needs it; else a hint."""
    symbols = read_symbols()
    try:
        capabilities = patient.capabilities
    except NftError as error:
        why = "no rule at all can be put into this kernel (CONFIG_NF_TABLES, CONFIG_NF_TABLES_BRIDGE)"
        yield wrong(str(error), why, command_for("CONFIG_NF_TABLES", "nf_tables", symbols))
        return
    lacking = [each for each in capabilities if not each.there]
    if any(each.name == "ct" for each in lacking):  # the others can't be there then, whatever the kernel was made with
        lacking = [each for each in lacking if each.name not in _NEED_CONNECTIONS]
    for each in lacking:
        users = [
            guest.name
            for guest in patient.defined
            if isinstance(guest.fault, MissingFeature) and each.symbol in str(guest.fault)
        ]
        find = wrong if users else hint
        who = f"{', '.join(users)} can't be started" if users else "no guest that is defined has such"
        what = "a guest with such rules is refused" if each.module else "they are left out"
        yield find(
            f"not on this kernel: {each.uses}: {explain(each.symbol, symbols)}",
            f"{what}; {who}",
            command_for(each.symbol, each.module, symbols),
        )
