"""br_netfilter doesn't hand guests' packets to rules of iptables that drop them: Docker's, firewalld's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..findings import Finding, hint, wrong
from ..patient import Patient

_FAMILIES = {"iptables": ("ip", "inet"), "ip6tables": ("ip6", "inet")}


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: bridged packets of guests meet chains that drop. A hint: they meet chains that don't, so far."""
    for tool, families in _FAMILIES.items():
        everywhere = _is_on(f"/proc/sys/net/bridge/bridge-nf-call-{tool}")
        alone = [name for name in sorted(patient.bridges) if _is_on(f"/sys/class/net/{name}/bridge/nf_call_{tool}")]
        if not patient.bridges or not (everywhere or alone):
            continue
        met = [each for each in patient.forwarding() if each.family in families]
        bad = [each for each in met if each.closed or (each.drops and each.whose != "libvirt")]
        names = ", ".join(f"{each.name}{' (' + each.whose + ')' if each.whose else ''}" for each in bad or met)
        where = "all bridges" if everywhere else f"bridge {', '.join(alone)}"
        command = f"sysctl -w net.bridge.bridge-nf-call-{tool}=0"
        if not everywhere:
            command = "; ".join(f"ip link set {name} type bridge nf_call_{tool} 0" for name in alone)
        if bad:
            why = "what a filter lets through is dropped behind it, and no counter of ours shows it"
            yield wrong(f"packets of {where} meet {tool}, too, where {names} drops", why, command)
        elif met:
            why = "what is forwarded between guests of one bridge is decided there, too"
            yield hint(f"packets of {where} meet {tool}, too: {names}", why, command)


def _is_on(path: str) -> bool:
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        return file.read().strip() == "1"
    return False
