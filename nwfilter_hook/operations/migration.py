"""
Whether a guest's filters would be the same on another host.

In:  the guest's digest and this host's; the other host's, as `digest --all --json` printed it there.
Out: a sentence for each difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..base.errors import NwfilterHookError
from .digests import FORMAT, GuestDigest, HostDigest, InterfaceDigest

MAX_BYTES = 16 << 20
ABILITIES = {
    "ct": "connection tracking on bridges (CONFIG_NF_CONNTRACK_BRIDGE)",
    "reject": "reject on bridges (CONFIG_NFT_BRIDGE_REJECT)",
    "count": "counting connections (CONFIG_NFT_CONNLIMIT)",
    "zones": "zones of connections (CONFIG_NF_CONNTRACK_ZONES)",
    "ingress": "rules before the bridge (CONFIG_NETFILTER_INGRESS)",
}


class Elsewhere:
    """
    What another host said of itself.

    Raises:
        NwfilterHookError: `data` is nothing that `digest --all --json` prints, or of another format.
    """

    def __init__(self, data: bytes, source: str) -> None:
        try:
            found = json.loads(data)
            if found["format"] != FORMAT:
                raise NwfilterHookError(
                    f"{source}: of format {found['format']}, not {FORMAT}: another version of nwfilter-hook"
                )
            self.host = str(found["host"])
            self.version = str(found["version"])
            self.abilities: Mapping[str, Any] = dict(found["abilities"])
            self.configuration: Mapping[str, Any] = dict(found["configuration"])
            self.filters: Mapping[str, Any] = dict(found["filters"])
            self.sets: Mapping[str, Any] = dict(found["sets"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            message = f"{source}: not what `nwfilter-hook digest --all --json` prints: {type(error).__name__}: {error}"
            raise NwfilterHookError(message) from None


def differences(guest: GuestDigest, here: HostDigest, there: Elsewhere) -> list[str]:
    """What would be otherwise for the guest on the other host; nothing if it would be filtered the same."""
    found = [line for each in guest.interfaces for line in _of_interface(each, here, there)]
    found += _of_configuration(guest, here, there)
    return list(dict.fromkeys(found))


def _of_interface(interface: InterfaceDigest, here: HostDigest, there: Elsewhere) -> Iterator[str]:
    for name, digest in interface.filters.items():
        if name not in there.filters:
            yield f"filter {name!r} isn't there"
        elif not there.filters[name]:
            yield f"filter {name!r} can't be read there"
        elif there.filters[name] != digest:
            yield f"filter {name!r} says something else there"
    needs = set(interface.needs) | {each for each in ("ingress",) if here.abilities.get(each)}
    for need in sorted(needs):
        if not there.abilities.get(need):
            yield f"the kernel there has no {ABILITIES.get(need, need)}"
    for name, digest in interface.sets.items():
        other = there.sets.get(name, "")
        if digest and not other:
            yield f"set {name!r} isn't there, or no filter there names it"
        elif digest != other:
            yield f"set {name!r} holds something else there"


def _of_configuration(guest: GuestDigest, here: HostDigest, there: Elsewhere) -> Iterator[str]:
    by_default = any(each.by_default for each in guest.interfaces)
    for key, value in here.configuration.items():
        other = there.configuration.get(key)
        if other == value or (key == "defaults" and not by_default):
            continue
        if isinstance(value, list) and isinstance(other, list):
            for each in value:
                if each not in other:
                    yield f"configuration: {key}: {each} isn't there"
            for each in other:
                if each not in value:
                    yield f"configuration: {key}: {each} is there only"
            if sorted(map(str, value)) == sorted(map(str, other)):
                yield f"configuration: {key}: in another order there, and the first that fits counts"
        else:
            yield f"configuration: {key} = {value} here, {other} there"
