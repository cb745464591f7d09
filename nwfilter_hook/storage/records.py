"""
What we write down of a running guest: its interfaces under filter and what they have in the kernel.

In:  a `Record`. Out: its JSON, and back; whatever else is in the text is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..base.addresses import is_tap_name
from ..base.dataclass import dataclass
from ..base.errors import Source
from ..filters.model import FilterRef
from ..nftables.names import Objects, is_of_tap
from ..ruleset.model import Attachment

SCHEMA = 1
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Binding:
    """
    One interface under filter: all that a rebuild needs without the domain XML, and what it has in the kernel.

    Attributes:
        fingerprints: for each chain of `objects`, what it lists (nft.fingerprint_of).
        digest: of its rules and sets (render.ruleset_digest).
        quarantined: True if its filter could not be compiled and everything is dropped instead.
    """

    tap: str
    mac: str
    type: str
    attachment: Attachment
    bridge: str | None
    carrier: str
    filter: str
    parameters: Mapping[str, tuple[str, ...]]
    objects: Objects
    fingerprints: tuple[tuple[str, ...], ...]
    digest: str
    quarantined: bool

    def reference(self, place: str) -> FilterRef:
        """The reference, as if it had been read from `place`."""
        return FilterRef(self.filter, self.parameters, Source(place, 1))


@dataclass(frozen=True)
class Record:
    """
    One guest.

    Attributes:
        operation: the libvirt operation that wrote it.
        stale: further objects that were to be deleted by the same transaction.
        digest: of the script that put everything there.
    """

    guest: str
    uuid: str
    operation: str
    bindings: tuple[Binding, ...]
    stale: tuple[Objects, ...]
    digest: str

    def objects(self) -> tuple[Objects, ...]:
        """Everything that may be in the kernel because of this record."""
        return tuple(binding.objects for binding in self.bindings) + self.stale


def to_json(record: Record) -> str:
    """The record as text."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "guest": record.guest,
            "uuid": record.uuid,
            "operation": record.operation,
            "digest": record.digest,
            "interfaces": [
                {
                    "tap": binding.tap,
                    "mac": binding.mac,
                    "type": binding.type,
                    "attachment": binding.attachment.value,
                    "bridge": binding.bridge,
                    "carrier": binding.carrier,
                    "filter": binding.filter,
                    "parameters": {name: list(values) for name, values in binding.parameters.items()},
                    "chains": list(binding.objects.chains),
                    "sets": list(binding.objects.sets),
                    "fingerprints": [list(fingerprint) for fingerprint in binding.fingerprints],
                    "digest": binding.digest,
                    "quarantined": binding.quarantined,
                }
                for binding in record.bindings
            ],
            "stale": [
                {"tap": each.tap, "family": each.family, "chains": list(each.chains), "sets": list(each.sets)}
                for each in record.stale
            ],
        },
        indent=1,
    )


def from_json(data: bytes) -> Record:
    """The record that `to_json` wrote. Raises ValueError, KeyError, TypeError, AttributeError for anything else."""
    found = json.loads(data)
    if found["schema"] != SCHEMA:
        raise ValueError(f"schema {found['schema']!r}, not {SCHEMA}")
    if not UUID.fullmatch(found["uuid"]):
        raise ValueError(f"uuid {found['uuid']!r}")
    return Record(
        guest=_text(found["guest"]),
        uuid=_text(found["uuid"]),
        operation=_text(found["operation"]),
        digest=_text(found["digest"]),
        bindings=tuple(_binding(each) for each in found["interfaces"]),
        stale=tuple(_objects(each["tap"], each["family"], each) for each in found["stale"]),
    )


def _binding(found: Mapping[str, Any]) -> Binding:
    attachment = Attachment(found["attachment"])
    return Binding(
        tap=_text(found["tap"]),
        mac=_text(found["mac"]),
        type=_text(found["type"]),
        attachment=attachment,
        bridge=None if found["bridge"] is None else _text(found["bridge"]),
        carrier=_text(found["carrier"]),
        filter=_text(found["filter"]),
        parameters={_text(name): _texts(values) for name, values in found["parameters"].items()},
        objects=_objects(found["tap"], attachment.family, found),
        fingerprints=tuple(_texts(each) for each in found["fingerprints"]),
        digest=_text(found["digest"]),
        quarantined=bool(found["quarantined"]),
    )


def _objects(tap: Any, family: Any, found: Mapping[str, Any]) -> Objects:
    if family not in ("bridge", "netdev"):
        raise ValueError(f"family {family!r}")
    if not is_tap_name(_text(tap)):
        raise ValueError(f"tap {tap!r}")
    return Objects(tap, family, _names("chain", tap, found["chains"]), _names("set", tap, found["sets"]))


def _names(kind: str, tap: str, values: Any) -> tuple[str, ...]:
    """Names of chains or sets; each must be the tap's own, so that no record can delete another's."""
    names = _texts(values)
    for name in names:
        if not is_of_tap(kind, name, tap) or not set(name) <= _NAME_CHARACTERS:
            raise ValueError(f"{name!r} is not of tap {tap!r}")
    return names


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is not a list")
    return tuple(_text(value) for value in values)
