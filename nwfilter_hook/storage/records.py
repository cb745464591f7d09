"""
What we write down of a running guest: its interfaces under filter and what they have in the kernel.

In:  a `Record`. Out: its JSON, and back; whatever else is in the text is an error.

Schema 2 holds the rules, so that they can be put back without a compiler. Schema 1 held names only; its records are
read as such, and what they describe is compiled anew at the guest's next event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..backend import Installed, Object
from ..base.dataclass import as_dict, dataclass, from_dict
from ..base.errors import NOWHERE
from ..filters.model import FilterRef
from ..ruleset.model import Attachment
from .strict import each, label, lists_by_name, name, number, optional, tap, text, truth, uuid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 2
HELD = "held"
"""The operation, and the type of the one interface, of a record that is nobody's."""


@dataclass(frozen=True)
class Binding:
    """
    One interface under filter: all that a rebuild needs without the domain XML, and what it has in the kernel. With the
    guard on, one that names no filter, too.

    Attributes:
        called: the device's name in the domain XML; its own may be another by now.
        index: of the device, as the kernel counts them; None if it isn't known.
        carrier: where the reference was found; "" if the interface names no filter.
        fingerprint: of what the kernel made of it (Backend.fingerprints); "" if it isn't known.
        quarantined: True if its filter could not be compiled, or is missing, and everything is dropped instead.
        floor: the filter that counts beside it, first: FILTER NAME=VALUE …; "" without one.
    """

    tap: str
    called: str
    mac: str
    type: str
    attachment: Attachment
    bridge: str | None
    index: int | None
    carrier: str
    filter: str
    parameters: Mapping[str, tuple[str, ...]]
    installed: Installed
    fingerprint: str
    quarantined: bool
    floor: str = ""

    @property
    def unfiltered(self) -> bool:
        """Whether it is known for the guard's sake alone."""
        return not self.carrier

    @property
    def held(self) -> bool:
        """Whether nobody has decided about the device, which is closed until then."""
        return self.type == HELD

    def filters(self) -> tuple[str, ...]:
        """The names of its own filter and of the floor's."""
        return tuple(filter(None, (self.filter, self.floor.partition(" ")[0])))

    @property
    def reference(self) -> FilterRef:
        """What the interface asked for."""
        return FilterRef(self.filter, self.parameters, NOWHERE)


@dataclass(frozen=True)
class Record:
    """
    One guest.

    Attributes:
        operation: the libvirt operation that wrote it.
        stale: what else was to be deleted by the same transaction, by name.
    """

    guest: str
    uuid: str
    operation: str
    bindings: tuple[Binding, ...]
    stale: tuple[Installed, ...]

    @property
    def held(self) -> bool:
        """Whether it is of a device that is closed since nobody has decided about it: operations/held.py."""
        return self.operation == HELD

    def installed(self) -> tuple[Installed, ...]:
        """Everything that may be in the kernel because of this record."""
        return tuple(binding.installed for binding in self.bindings) + self.stale


def to_json(record: Record) -> str:
    """The record as text."""
    return json.dumps({"schema": SCHEMA, **as_dict(record)}, separators=(",", ":"))


def from_json(data: bytes) -> Record:
    """
    The record that `to_json` wrote, of this schema or the one before.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is none.
    """
    found = json.loads(data)
    schema = found.pop("schema")
    if schema == 1:
        from . import schema_1

        found = schema_1.upgrade(found)
    elif schema != SCHEMA:
        raise ValueError(f"schema {schema!r}, not {SCHEMA}")
    return from_dict(
        Record,
        found,
        guest=label,
        uuid=uuid,
        operation=text,
        bindings=each(_binding),
        stale=each(_installed),
    )


def _binding(found: Any) -> Binding:
    binding = from_dict(
        Binding,
        found,
        tap=tap,
        called=text,
        mac=text,
        type=text,
        attachment=Attachment,
        bridge=optional(text),
        index=optional(number),
        carrier=text,
        filter=text,
        parameters=lists_by_name,
        installed=_installed,
        fingerprint=text,
        quarantined=truth,
        floor=text,
    )
    if binding.installed.tap != binding.tap:
        raise ValueError(f"{binding.installed.tap!r} is not {binding.tap!r}")
    return binding


def _installed(found: Any) -> Installed:
    installed = from_dict(Installed, found, tap=tap, objects=each(_object), whole=truth)
    for one in installed.objects:
        if not one.belongs_to(installed.tap):
            raise ValueError(f"{one.kind} {one.name!r} is not of tap {installed.tap!r}")
    return installed


def _object(found: Any) -> Object:
    return from_dict(Object, found, kind=name, table=name, name=name, definition=text, content=each(text))
