"""What would be otherwise for a guest elsewhere is said, and what is the same isn't; who is asked, and how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.base.errors import NwfilterHookError
from nwfilter_hook.network.remote import COMMAND, is_remote, ssh_arguments
from nwfilter_hook.nftables.features import needs_of_statements
from nwfilter_hook.operations.digests import GuestDigest, HostDigest, InterfaceDigest
from nwfilter_hook.operations.migration import Elsewhere, differences

MAC = "52:54:00:00:00:01"
WEB = InterfaceDigest(MAC, "web", {"IP": ("10.0.0.1",)}, "", False, {"web": "1", "inner": "2"}, ("ct",), {"bad": "3"})
GUEST = GuestDigest("web", "uuid", "digest", (WEB,))
HERE = HostDigest(
    format=1,
    version="0.1.0",
    host="here",
    abilities={"ct": True, "reject": False, "ingress": True},
    configuration={
        "end_of_chain": "return",
        "never": [[4, 1, 2]],
        "defaults": ["bridge.a = x"],
        "floors": ["floor.a = x"],
    },
    filters={"web": "1", "inner": "2", "other": "7"},
    sets={"bad": "3"},
    guests=(GUEST,),
)


def elsewhere(**changes: Any) -> Elsewhere:
    return Elsewhere(json.dumps({**HERE.as_json(), **changes}).encode(), "there.json")


def test_the_same() -> None:
    """Another name, other guests, an ability or a filter more: all the same to this guest."""
    assert differences(GUEST, HERE, elsewhere()) == []
    more = {**HERE.filters, "new": "9", "other": "8"}
    assert differences(GUEST, HERE, elsewhere(host="x", guests=[], filters=more, version="9")) == []
    assert differences(GUEST, HERE, elsewhere(abilities={"ct": True, "reject": True, "ingress": True})) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"filters": {"web": "1"}}, "filter 'inner' isn't there"),
        ({"filters": {"web": "1", "inner": ""}}, "filter 'inner' can't be read there"),
        ({"filters": {"web": "1", "inner": "3"}}, "filter 'inner' says something else there"),
        (
            {"abilities": {"ingress": True}},
            "the kernel there has no connection tracking on bridges (CONFIG_NF_CONNTRACK_BRIDGE)",
        ),
        ({"abilities": {"ct": True}}, "the kernel there has no rules before the bridge (CONFIG_NETFILTER_INGRESS)"),
        ({"sets": {}}, "set 'bad' isn't there, or no filter there names it"),
        ({"sets": {"bad": "4"}}, "set 'bad' holds something else there"),
        (
            {"configuration": {**HERE.configuration, "end_of_chain": "accept"}},
            "configuration: end_of_chain = return here, accept there",
        ),
        ({"configuration": {**HERE.configuration, "never": []}}, "configuration: never: [4, 1, 2] isn't there"),
        (
            {"configuration": {**HERE.configuration, "floors": ["floor.a = x", "floor.b = y"]}},
            "configuration: floors: floor.b = y is there only",
        ),
    ],
)
def test_each_difference(changes: dict[str, Any], said: str) -> None:
    assert differences(GUEST, HERE, elsewhere(**changes)) == [said]


def test_defaults_count_for_who_has_them() -> None:
    """A default of the configuration is of no meaning to a guest that names its filter; its order is, to others."""
    two = replace(HERE, configuration={**HERE.configuration, "defaults": ["bridge.a = x", "bridge.* = y"]})
    turned = elsewhere(configuration={**two.configuration, "defaults": ["bridge.* = y", "bridge.a = x"]})
    assert differences(GUEST, two, turned) == []
    by_default = replace(GUEST, interfaces=(replace(WEB, by_default=True),))
    assert differences(by_default, two, turned) == [
        "configuration: defaults: in another order there, and the first that fits counts"
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "there.json: not what `nwfilter-hook digest --all --json` prints: JSONDecodeError"),
        (b"[]", "there.json: not what `nwfilter-hook digest --all --json` prints: TypeError"),
        (b'{"format": 1}', "there.json: not what `nwfilter-hook digest --all --json` prints: KeyError"),
        (b'{"format": 2}', "there.json: of format 2, not 1: another version of nwfilter-hook"),
        (b"\xff\xfe\x00", "there.json: not what `nwfilter-hook digest --all --json` prints: "),
        (b"[" * 100_000, "there.json: not what `nwfilter-hook digest --all --json` prints: RecursionError"),
    ],
)
def test_what_is_no_digest(data: bytes, said: str) -> None:
    with pytest.raises(NwfilterHookError) as raised:
        Elsewhere(data, "there.json")
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("ssh://host2", ["--", "host2", COMMAND]),
        ("ssh://root@host2:2222", ["-l", "root", "-p", "2222", "--", "host2", COMMAND]),
        ("qemu+ssh://user@h.example/system?keyfile=x", ["-l", "user", "--", "h.example", COMMAND]),
        ("ssh://[2001:db8::1]:22", ["-p", "22", "--", "2001:db8::1", COMMAND]),
    ],
)
def test_who_is_asked(destination: str, words: list[str]) -> None:
    assert is_remote(destination)
    assert ssh_arguments(destination)[:3] == ["ssh", "-o", "BatchMode=yes"]
    assert ssh_arguments(destination)[5:] == words


@pytest.mark.parametrize(
    "destination",
    [
        *("ssh://", "ssh://-oProxyCommand=x", "ssh://-l@host", "ssh://a b", "ssh://host:port", "ssh://host;x"),
        *("qemu:///system", "qemu+tls://host/system", "http://host", "ssh://user name@host"),
    ],
)
def test_who_is_not(destination: str) -> None:
    """Nothing becomes an option of ssh."""
    with pytest.raises(NwfilterHookError, match=r"is not ssh://\[USER@\]HOST"):
        ssh_arguments(destination)


def test_needs_of_recorded_rules() -> None:
    """By their words, not by what comments say."""
    assert needs_of_statements(['c: ct state new accept comment "a:1"', 'c: drop comment "x reject ct count"']) == (
        "ct",
    )
    assert needs_of_statements(['c: ip saddr . ct count over 2 counter reject comment "a:1"']) == (
        "ct",
        "reject",
        "count",
    )
    assert needs_of_statements([]) == ()
