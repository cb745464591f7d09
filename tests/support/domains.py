"""Domain XML for tests: as libvirt would write it, but only what a hook looks at; and the recorded events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid5
from xml.sax.saxutils import quoteattr

from tests.support.frames import GUEST

HOOK_EVENTS = Path(__file__).resolve().parents[1] / "data" / "hook-events"

Parameters = Iterable[tuple[str, str]]


def recorded(number: int) -> str:
    """What libvirt put on the hook's standard input at the event `number` of tests/data/hook-events."""
    (path,) = HOOK_EVENTS.glob(f"{number:02}.qemu.*.xml")
    return path.read_text()


def filterref(name: str, parameters: Parameters = ()) -> str:
    """A <filterref> with its parameters."""
    values = "".join(f"<parameter name={quoteattr(k)} value={quoteattr(v)}/>" for k, v in parameters)
    return f"<filterref filter={quoteattr(name)}>{values}</filterref>"


def interface(
    tap: str | None,
    filter_name: str | None,
    parameters: Parameters = (),
    *,
    mac: str = GUEST,
    bridge: str = "br0",
) -> str:
    """An <interface type='bridge'>; without `tap` as it is before and after the guest's life."""
    return (
        f"<interface type='bridge'><mac address={quoteattr(mac)}/><source bridge={quoteattr(bridge)}/>"
        + (f"<target dev={quoteattr(tap)}/>" if tap is not None else "")
        + (filterref(filter_name, parameters) if filter_name is not None else "")
        + "</interface>"
    )


def device(
    kind: str, tap: str | None, filter_name: str | None, parameters: Parameters = (), *, mac: str = GUEST, source: str
) -> str:
    """An <interface> of type `kind` that is no port of a Linux bridge; `source` is the XML that says what it is."""
    return (
        f"<interface type={quoteattr(kind)}><mac address={quoteattr(mac)}/>{source}"
        + (f"<target dev={quoteattr(tap)}/>" if tap is not None else "")
        + (filterref(filter_name, parameters) if filter_name is not None else "")
        + "</interface>"
    )


def domain(name: str, interfaces: Sequence[str], *, metadata: str = "") -> str:
    """A domain of that name, its UUID derived from the name."""
    return (
        f"<domain type='qemu' id='1'><name>{name}</name><uuid>{uuid_of(name)}</uuid>"
        f"<metadata>{metadata}</metadata><devices>{''.join(interfaces)}</devices></domain>\n"
    )


def learned_set(name: str, tap: str, segment: str = "br0", version: str = "") -> str:
    """What the set of the addresses is called that the tap of the guest of that name has learned; "6" for IPv6."""
    return f"learned{version}/{tap}/{segment}/of-{key_of(name)}"


def key_of(name: str) -> str:
    """What the names of sets say of whose tap it is."""
    return uuid_of(name).replace("-", "")


def uuid_of(name: str) -> str:
    """The UUID that `domain` gives to a guest of that name."""
    return str(uuid5(NAMESPACE_DNS, name))
