"""
nft's complaint about a transaction, with the filter and line whose rule it is about: for people, never for a decision.
"""

from __future__ import annotations

import re

from .commands import Script

_LOCATION = re.compile(r"^(?:/dev/stdin|-):(\d+):\d+-\d+: (?:Error|error): (.*)$", re.MULTILINE)


def explain(script: Script, complaint: str) -> str:
    """One line about the first thing that nft says in `complaint`."""
    match = _LOCATION.search(complaint)
    if not match:
        lines = complaint.strip().splitlines()
        return f"nft refused the transaction: {lines[0] if lines else 'without a message'}"
    number, message = int(match[1]), match[2]
    operation = script.operations[number - 1] if number <= len(script.operations) else None
    if operation is not None and operation.origin is not None:
        name, source = operation.origin
        return f"{source}: filter {name!r}: nft refused this rule: {message}: {operation.text}"
    return f"nft refused the transaction: {message}: {operation.text if operation else ''}"
