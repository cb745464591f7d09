"""The kernel can do what rules need: modules and config symbols, by name."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.errors import MissingFeature, NftError
from ..findings import Finding, hint, wrong
from ..kernel import command_for, explain, read_symbols
from ..patient import Patient


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong if a guest that runs or is defined needs it; else a hint."""
    symbols = read_symbols()
    try:
        capabilities = patient.capabilities
    except NftError as error:
        why = "no rule at all can be put into this kernel (CONFIG_NF_TABLES, CONFIG_NF_TABLES_BRIDGE)"
        yield wrong(str(error), why, command_for("CONFIG_NF_TABLES", "nf_tables", symbols))
        return
    for each in capabilities:
        if each.there:
            continue
        users = [
            guest.name
            for guest in patient.defined
            if isinstance(guest.fault, MissingFeature) and each.symbol in str(guest.fault)
        ]
        find = wrong if users else hint
        who = f"; {', '.join(users)} can't be started" if users else "; no guest that is defined has such"
        yield find(
            f"this kernel can't enforce {each.uses}: {explain(each.symbol, symbols)}",
            f"a guest with such rules is refused{who}" if each.module else f"they are left out{who if users else ''}",
            command_for(each.symbol, each.module, symbols),
        )
