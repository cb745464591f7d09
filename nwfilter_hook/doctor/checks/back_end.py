"""The back end fits the kernel: where nft can't have rules of layer 3, the older tools may."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from ...base.errors import NftError
from ...settings import SECTIONS
from ..findings import Finding, hint
from ..kernel import read_symbols
from ..patient import Patient

_TOOLS = ("ebtables", "iptables", "ip6tables")
_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"


def examine(patient: Patient) -> Iterator[Finding]:
    """A hint: this kernel lacks nf_tables or connections in bridges, but has what ebtables and iptables need."""
    try:
        lacking = [each.symbol for each in patient.capabilities if each.name == "ct" and not each.there]
    except NftError:
        lacking = ["CONFIG_NF_TABLES_BRIDGE"]
    if not lacking or not all(shutil.which(tool, path=_PATH) for tool in _TOOLS) or not _has_br_netfilter():
        return
    key = "backend" in SECTIONS.get("host", {})
    why = "rules of layer 3 (tcp, udp, icmp, …) could be enforced by them, with br_netfilter on the guests' bridges"
    if not key:
        why += "; this version of nwfilter-hook has no such back end: the way is a kernel that has it"
    yield hint(
        f"nftables can't have rules of layer 3 here, for want of {lacking[0]}, but ebtables and iptables could",
        why,
        "echo '[host]\nbackend = ebtables' >>/etc/nwfilter-hook/nwfilter-hook.conf" if key else "",
    )


def _has_br_netfilter() -> bool:
    return os.path.isdir("/proc/sys/net/bridge") or read_symbols().get("CONFIG_BRIDGE_NETFILTER") in ("y", "m")
