"""The bound on a guest's connections: which transactions make what."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwfilter_hook.backend import Rendered
from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.nftables import tracking
from nwfilter_hook.nftables.features import needs_of
from nwfilter_hook.nftables.script import install, remove, render
from nwfilter_hook.nftables.tracking import bound_of
from tests.unit.compiling import compiled, filter_xml, rule_xml

STATEFUL = filter_xml(rule_xml("<tcp/>", action="accept"))
STATELESS = filter_xml(rule_xml("<arp/>"))
BASE = "add rule bridge nwfilter bound-prerouting ct status & confirmed == 0 iifname vmap @bounds"


def rendered(text: str, connections: int | None = None, *, bounded: bool = True) -> Rendered:
    """A tap under the filter."""
    ruleset = replace(compiled(text), connections=connections)
    return render(ruleset, "drops", bounded=bounded)


def lines(*taps: Rendered, bound: int = 100, counters: str = "drops") -> list[str]:
    """What the transaction that installs them has about bounds."""
    text = install(taps, fresh=True, bound=bound, counters=counters).text
    return [line for line in text.splitlines() if "bound" in line or "connections" in line]


def test_a_guest_whose_rules_look_at_connections() -> None:
    """With it comes what counts, for all that have an element in the map."""
    found = lines(rendered(STATEFUL))
    assert found == [
        "add map bridge nwfilter bounds { type ifname : verdict; }",
        "add chain bridge nwfilter bound",
        "add map bridge nwfilter bounds { type ifname : verdict; }",
        "add set bridge nwfilter connections-100 { type ifname; size 65535; flags dynamic; }",
        "add set bridge nwfilter at-bound { type ifname; size 65535; flags dynamic,timeout; timeout 20ms; }",
        "add set bridge nwfilter over-bound { type ifname; size 65535; flags dynamic,timeout; timeout 60s; }",
        "add chain bridge nwfilter over-bound",
        "flush chain bridge nwfilter over-bound",
        "add rule bridge nwfilter over-bound update @over-bound { iifname }",
        "add rule bridge nwfilter over-bound add @at-bound { iifname }",
        "add rule bridge nwfilter over-bound counter drop",
        "add chain bridge nwfilter bound",
        "flush chain bridge nwfilter bound",
        "add rule bridge nwfilter bound iifname @at-bound counter drop",
        "add rule bridge nwfilter bound add @connections-100 { iifname ct count over 100 } jump over-bound",
        "add rule bridge nwfilter bound iifname != @connections-100 counter drop",
        "add chain bridge nwfilter bound-prerouting { type filter hook prerouting priority -140; policy accept; }",
        "flush chain bridge nwfilter bound-prerouting",
        BASE,
        'add element bridge nwfilter bounds { "vnet0" : jump bound }',
    ]
    assert not any("counter" in line for line in lines(rendered(STATEFUL), counters="none"))


def test_a_guest_whose_rules_do_not() -> None:
    """It has its element; a rule that counts would have the kernel track everything."""
    assert lines(rendered(STATELESS)) == [
        "add map bridge nwfilter bounds { type ifname : verdict; }",
        "add chain bridge nwfilter bound",
        'add element bridge nwfilter bounds { "vnet0" : jump bound }',
    ]


@pytest.mark.parametrize("text", [STATEFUL, STATELESS])
def test_a_guest_with_a_bound_of_its_own(text: str) -> None:
    """Somebody has asked for it, so connections are tracked for it if need be."""
    found = lines(rendered(text, 7))
    assert 'add element bridge nwfilter bounds { "vnet0" : jump bound-7 }' in found
    assert "add rule bridge nwfilter bound-7 add @connections-7 { iifname ct count over 7 } jump over-bound" in found
    assert BASE in found
    assert ("add rule bridge nwfilter bound iifname @at-bound counter drop" in found) is (text is STATEFUL)


def test_no_bound() -> None:
    """For one guest, or on the whole host; others keep theirs."""
    assert not any("vnet0" in line for line in lines(rendered(STATEFUL, 0)))
    assert BASE in lines(rendered(STATEFUL, 0))
    assert lines(rendered(STATEFUL, bounded=False), bound=0) == []
    assert BASE in lines(rendered(STATEFUL, 7, bounded=False), bound=0)


def test_what_is_removed_leads_somewhere() -> None:
    """Whether the chain is still there or not: an element is added before it is deleted."""
    text = remove([rendered(STATELESS, 7).installed]).text
    position = text.index("add chain bridge nwfilter bound-7\n")
    assert position < text.index('add element bridge nwfilter bounds { "vnet0" : jump bound-7 }')
    assert 'delete element bridge nwfilter bounds { "vnet0" }' in text


def test_a_kernel_that_cannot_count() -> None:
    """Only who asks for a bound is told."""
    assert needs_of([compiled(STATELESS)]) == {}
    assert set(needs_of([replace(compiled(STATELESS), connections=7)])) == {"ct", "count"}
    assert set(needs_of([compiled(STATEFUL)])) == {"ct"}
    assert set(needs_of([compiled(filter_xml(rule_xml("<tcp connlimit-above='3'/>")))])) == {"ct", "count"}


@pytest.mark.parametrize(
    ("setting", "size", "expected"),
    [
        ("none", "262144", 0),
        ("5000", "262144", 5000),
        ("1/32", "262144\n", 8192),
        ("1/1", "262144", 262144),
        ("1/1000000", "262144", 256),
        ("1/32", "0", 2048),  # without a limit
        ("1/32", "what?", 2048),
        ("1/32", None, 2048),  # not loaded yet
    ],
)
def test_a_share_of_the_table(
    setting: str, size: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As large as the kernel says, or as it usually is."""
    path = tmp_path / "nf_conntrack_max"
    if size is not None:
        path.write_text(size)
    monkeypatch.setattr(tracking, "_TABLE_SIZE", str(path))
    assert bound_of(setting) == expected
