"""
Twins: filters of the same name and UUID without rules, for libvirt's own driver, which then installs nothing.
"""

from __future__ import annotations

from ..base.text import xml_escaped
from .model import Filter, FilterRef


def twin_of(definition: Filter) -> str:
    """The XML of the twin; libvirt wants the same UUID, chain and priority."""
    uuid = f"<uuid>{definition.uuid}</uuid>" if definition.uuid else ""
    priority = f" priority='{definition.priority}'" if definition.chain != "root" else ""
    name, chain = xml_escaped(definition.name), xml_escaped(definition.chain)
    return f"<filter name='{name}' chain='{chain}'{priority}>{uuid}</filter>\n"


def is_twin(definition: Filter) -> bool:
    """Whether it has neither rules nor references."""
    return not definition.entries


def referred(definition: Filter) -> list[str]:
    """Names of the filters that it refers to."""
    return [each.filter for each in definition.entries if isinstance(each, FilterRef)]


def same_rules(one: Filter, other: Filter) -> bool:
    """Whether both say the same, whatever their UUIDs, comments and lines are."""
    from ..base.dataclass import replace
    from .format import format_filter

    plain = (format_filter(replace(each, uuid=None, comments=())) for each in (one, other))
    return next(plain) == next(plain)
