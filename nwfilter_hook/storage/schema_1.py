"""
Records of schema 1, as versions before 0.2 wrote them: names of chains and sets, no rules.

In:  such a record's JSON. Out: the same in schema 2, what the taps have in the kernel known by name only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def upgrade(found: Mapping[str, Any]) -> dict[str, Any]:
    """Raises KeyError, TypeError, AttributeError if it isn't one."""
    return {
        "guest": found["guest"],
        "uuid": found["uuid"],
        "operation": found["operation"],
        "bindings": [_binding(each) for each in found["interfaces"]],
        "stale": [_installed(each["tap"], each["family"], each) for each in found["stale"]],
    }


def _binding(found: Mapping[str, Any]) -> dict[str, Any]:
    table = "bridge" if found["attachment"] == "bridge-port" else "netdev"
    same = ("tap", "mac", "type", "attachment", "bridge", "carrier", "filter", "parameters", "quarantined")
    installed = _installed(found["tap"], table, found)
    return {
        **{name: found[name] for name in same},
        "index": None,
        "called": found["tap"],
        "floor": "",
        "installed": installed,
        "fingerprint": "",
    }


def _installed(tap: str, table: str, found: Mapping[str, Any]) -> dict[str, Any]:
    names = [("chain", name) for name in found["chains"]]
    names += [("map" if name.endswith("/address") else "set", name) for name in found["sets"]]
    objects = [{"kind": kind, "table": table, "name": name, "definition": "", "content": []} for kind, name in names]
    return {"tap": tap, "objects": objects, "whole": False}
