"""A guest whose filter can't be had doesn't start, `virsh` says why in our words, and nothing of it is left."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.libvirt.conftest import CONFIGURATION, Guests, Host, configuration
from tests.support.frames import GUEST, GUEST_IP, OTHER
from tests.support.guest import filterref_xml, guest_uuid, interface_xml

pytestmark = pytest.mark.libvirt

CLEAN = interface_xml(GUEST, "<source bridge='br0'/>", reference=filterref_xml("clean-traffic", ("IP", GUEST_IP)))

BROKEN_NFT = """\
#!/bin/sh
case "$*" in
*list* | *-V* | *--version*) exec nft "$@" ;;
esac
cat >/dev/null
echo "Error: out of order" >&2
exit 1
"""


def refusal(host: Host, name: str) -> str:
    """
    Start a defined guest that must be refused.

    Returns:
        The hook's line in the error that virsh shows.
    """
    objects = host.kernel.objects()
    interfaces = host.interfaces()
    started = host.libvirtd.virsh("start", name, check=False)
    assert started.returncode != 0
    found = re.search(r"exit status 1: (.*)\Z", started.stderr, re.DOTALL)
    assert found, started.stderr
    message = found.group(1).strip()
    assert len(message.splitlines()) == 1, message
    assert "Traceback" not in message

    assert host.libvirtd.virsh("domstate", name).stdout.strip() == "shut off"
    assert host.run("pgrep", "-f", f"guest={name},", check=False).stdout == ""
    assert not host.record_path(name).exists()
    assert _named(host.kernel.objects()) == _named(objects)
    assert host.interfaces() == interfaces
    return message


def _named(objects: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """Chains, sets and maps with their elements; base chains and maps may come into being empty."""
    base = re.compile(r"(l[23]-(pre|post)routing|(from|to)-guest-l[23])\Z")
    return [
        (o["type_"], o.get("name") or o.get("chain"), repr(o.get("elem")))
        for o in objects
        if o["type_"] != "table" and not (base.match(str(o.get("name") or o.get("chain"))) and not o.get("elem"))
    ]


def test_a_filter_that_is_not_in_the_library(host: Host, guests: Guests) -> None:
    """libvirt knows the filter, we don't: refused, and the error names it."""
    host.add_twin(f"<filter name='nowhere' chain='root'><uuid>{guest_uuid('nowhere')}</uuid></filter>")
    guests.define("lost", interface_xml(GUEST, "<source bridge='br0'/>", reference=filterref_xml("nowhere")))
    assert "nowhere" in refusal(host, "lost")
    assert [event.operation for event in host.events("lost")] == ["prepare", "stopped", "release"]


def test_a_variable_without_a_value(host: Host, guests: Guests) -> None:
    """clean-traffic-gateway wants GATEWAY_MAC, which nobody gives: refused, the error names it with file and line."""
    reference = filterref_xml("clean-traffic-gateway", ("IP", GUEST_IP))
    guests.define("unbound", interface_xml(GUEST, "<source bridge='br0'/>", reference=reference))
    message = refusal(host, "unbound")
    assert "GATEWAY_MAC" in message
    assert re.search(r"clean-traffic-gateway\.xml:\d+", message)

    reference = filterref_xml("clean-traffic-gateway", ("IP", GUEST_IP), ("GATEWAY_MAC", OTHER))
    guests.define("unbound", interface_xml(GUEST, "<source bridge='br0'/>", reference=reference))
    host.libvirtd.virsh("start", "unbound")  # the value was all that was missing


def test_the_metadata_carrier_is_refused_alike(host: Host, guests: Guests) -> None:
    """A filter named in the metadata only, unknown to libvirt and to us: refused."""
    metadata = (
        "<nwf:bindings xmlns:nwf='https://nwfilter-hook.org/xmlns/1'>"
        f"<nwf:interface mac='{GUEST}'>{filterref_xml('nowhere-else')}</nwf:interface></nwf:bindings>"
    )
    guests.define("carrier", interface_xml(GUEST, "<source bridge='br0'/>"), metadata=metadata)
    assert "nowhere-else" in refusal(host, "carrier")


@pytest.fixture
def broken_nft(host: Host) -> Iterator[None]:
    """The configuration names an nft that refuses every transaction but answers questions."""
    host.write("/run/broken-nft", BROKEN_NFT, mode=0o755)
    host.write(CONFIGURATION, configuration("nft = /run/broken-nft"))
    yield
    host.write(CONFIGURATION, configuration())


@pytest.mark.usefixtures("broken_nft")
def test_a_transaction_that_nft_refuses(host: Host, guests: Guests) -> None:
    """nft fails: the guest isn't started, virsh shows what nft said."""
    guests.define("unfiltered", CLEAN)
    assert "out of order" in refusal(host, "unfiltered")


def test_without_our_refusal_the_guest_starts(host: Host, guests: Guests) -> None:
    """The twin of all the above: the same guest with a filter that is there."""
    guests.start("fine", CLEAN)
    assert host.record_path("fine").exists()
