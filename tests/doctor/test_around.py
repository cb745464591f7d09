"""What others have on the host, and what libvirt has of guests: each fault is named, and its twin isn't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nwfilter_hook.guards import Guard
from nwfilter_hook.nftables.shield import script as shield_script
from tests.doctor.conftest import ABLE, IP, LACKS_CT, WEB, Ward
from tests.support.domains import interface
from tests.support.frames import OTHER

pytestmark = pytest.mark.netns

DOCKER = ("-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER")
FIREWALLD = """
table inet firewalld {
    chain filter_FORWARD { type filter hook forward priority 10; ct state established accept; jump zones; reject; }
    chain zones { }
}
"""
UUID = "<uuid>fce8ae33-e69e-83bf-262e-30786c1f8072</uuid>"


def iptables(ward: Ward, *rules: str, tool: str = "iptables") -> None:
    for rule in rules:
        ward.wire.run(tool, *rule.split())


def call_iptables(ward: Ward) -> None:
    ward.wire.run("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=1")


def call_iptables_of_the_bridge(ward: Ward) -> None:
    ward.wire.ip("link set br0 type bridge nf_call_iptables 1")


def twin(ward: Ward, xml: str, name: str = "clean-traffic") -> None:
    """libvirt's own driver has this filter."""
    directory = ward.libvirt / "nwfilter"
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.xml").write_text(xml)


# --- guests ---


def guest_without_filter(ward: Ward) -> None:
    ward.runs("db", interface("vnet1", "clean-traffic", IP, mac=OTHER))


def guest_that_asks_for_another(ward: Ward) -> None:
    ward.runs("web", interface("vnet0", "no-ip-spoofing", IP))


def guest_that_asks_for_another_address(ward: Ward) -> None:
    ward.runs("web", interface("vnet0", "clean-traffic", [("IP", "10.0.0.9")]))


def guest_whose_xml_is_broken(ward: Ward) -> None:
    (ward.running / "qemu/web.xml").write_text("<domstatus><domain id='1'><name>web</domain></domstatus>")


def guest_whose_xml_is_garbage(ward: Ward) -> None:
    (ward.running / "qemu/web.xml").write_text("nothing of the kind")


def guest_that_asks_for_none(ward: Ward) -> None:
    ward.runs("db", interface("vnet1", None, mac=OTHER))


def next_start_without_filter(ward: Ward) -> None:
    ward.defines("db", interface(None, "nowhere"))


def next_start_without_variable(ward: Ward) -> None:
    (ward.filters / "open.xml").write_text(
        "<filter name='open'><rule action='drop' direction='in'><ip srcipaddr='$PEER'/></rule></filter>"
    )
    ward.defines("web", interface(None, "open"))


def next_start_of_a_good_one(ward: Ward) -> None:
    ward.defines("web", interface(None, "clean-traffic", IP))


# --- libvirt's own driver ---


def libvirt_filters_too(ward: Ward) -> None:
    ward.nft("table bridge nat { chain libvirt-I-vnet0 { drop; }; }")


def libvirt_filters_by_older_tools(ward: Ward) -> None:
    iptables(ward, "-N FI-vnet0", tool="iptables-legacy")


def libvirt_filters_others(ward: Ward) -> None:
    ward.nft("table bridge nat { chain libvirt-I-vnet00 { drop; }; chain libvirt-I-vnet1 { drop; }; }")


def twin_missing(ward: Ward) -> None:
    (ward.libvirt / "nwfilter").mkdir()


def twin_with_rules(ward: Ward) -> None:
    twin(ward, f"<filter name='clean-traffic'>{UUID}<filterref filter='no-mac-spoofing'/></filter>")


def twin_as_it_should_be(ward: Ward) -> None:
    twin(ward, f"<filter name='clean-traffic'>{UUID}</filter>")


# --- other packages ---


def docker_and_br_netfilter(ward: Ward) -> None:
    iptables(ward, *DOCKER)
    call_iptables(ward)


def older_docker_and_one_bridge(ward: Ward) -> None:
    iptables(ward, *DOCKER, tool="iptables-legacy")
    call_iptables_of_the_bridge(ward)


def firewalld_and_br_netfilter(ward: Ward) -> None:
    ward.nft(FIREWALLD)
    call_iptables(ward)


def docker_alone(ward: Ward) -> None:
    iptables(ward, *DOCKER)


def br_netfilter_alone(ward: Ward) -> None:
    call_iptables(ward)


def br_netfilter_and_a_chain(ward: Ward) -> None:
    iptables(ward, "-A FORWARD -j ACCEPT")
    call_iptables(ward)


def docker_where_the_host_routes(ward: Ward) -> None:
    iptables(ward, *DOCKER)
    ward.wire.ip("address add 10.0.0.254/24 dev br0")


def open_policy_where_the_host_routes(ward: Ward) -> None:
    iptables(ward, "-N DOCKER-USER")
    ward.wire.ip("address add 10.0.0.254/24 dev br0")


def foreign_drop(ward: Ward) -> None:
    ward.nft(
        "table bridge x { chain d { drop; }; chain c { type filter hook forward priority -5; vlan id 5 jump d; }; }"
    )


def foreign_policy(ward: Ward) -> None:
    ward.nft("table bridge x { chain c { type filter hook forward priority 7; policy drop; }; }")


def foreign_accept_on_a_tap(ward: Ward) -> None:
    ward.nft("table netdev y { chain c { type filter hook ingress device vnet0 priority -9; accept; }; }")


def foreign_tables_elsewhere(ward: Ward) -> None:
    ward.nft(
        "table bridge x { chain c { type filter hook forward priority -5; counter; }; }\n"
        "table netdev y { chain c { type filter hook ingress device vnet1 priority -9; drop; }; }\n"
        "table ip z { chain c { type filter hook input priority 0; drop; }; }"
    )


def the_shield(ward: Ward) -> None:
    ward.nft(f"{shield_script(Guard('generated', shield=True)).replace('flags owner; ', '')}\n")


def hook_that_prints(ward: Ward) -> None:
    other_hook(ward, "10-backup", "#!/bin/sh\n# echo nothing\necho started $1 >>/var/log/backup\n  echo done\n")


def hook_in_python_that_prints(ward: Ward) -> None:
    other_hook(ward, "10-backup", "#!/usr/bin/python3\nimport sys\nprint('guest', sys.argv[1])\n")


def hooks_that_print_elsewhere(ward: Ward) -> None:
    other_hook(ward, "10-a", "#!/bin/sh\necho started >&2\nprintf '%s' \"$1\" | logger -t a\n")
    other_hook(ward, "20-b", "#!/bin/sh\nexec >/var/log/b\necho started\n")
    other_hook(ward, "30-c", "#!/usr/bin/python3\nprint('x', file=sys.stderr)\n")
    other_hook(ward, "40-d", "#!/bin/sh\necho not started, since it isn't executable\n").chmod(0o644)


def other_hook(ward: Ward, name: str, text: str) -> Path:
    path = ward.hook.with_name(name)
    path.write_text(text)
    path.chmod(0o755)
    return path


def kernel_of_2010(ward: Ward) -> None:
    ward.fake_nft(LACKS_CT)


def kernel_of_today(ward: Ward) -> None:
    ward.fake_nft(ABLE)


CASES: dict[Callable[[Ward], None], tuple[str, str, str, str]] = {
    guest_without_filter: (
        "unfiltered-guests",
        "wrong",
        "db: vnet1 has no filter and asks for clean-traffic",
        "nwfilter-hook resync",
    ),
    guest_that_asks_for_another: (
        "unfiltered-guests",
        "wrong",
        "web: vnet0 has clean-traffic and asks for no-ip-spoofing now",
        "nwfilter-hook resync",
    ),
    guest_that_asks_for_another_address: ("unfiltered-guests", "wrong", "clean-traffic with other parameters now", ""),
    guest_whose_xml_is_broken: ("unfiltered-guests", "wrong", "web: ", "virsh dumpxml web"),
    guest_whose_xml_is_garbage: ("unfiltered-guests", "wrong", "web: ", "virsh dumpxml web"),
    guest_that_asks_for_none: ("unfiltered-guests", "", "", ""),
    next_start_without_filter: (
        "next-start",
        "wrong",
        "db can't be started: /etc/libvirt/qemu/db.xml:1: no filter 'nowhere'",
        "nwfilter-hook replay db prepare --xml /etc/libvirt/qemu/db.xml",
    ),
    next_start_without_variable: ("next-start", "wrong", "variable has no value: $PEER", ""),
    next_start_of_a_good_one: ("next-start", "", "", ""),
    libvirt_filters_too: ("libvirt-rules", "wrong", "beside ours: libvirt-I-vnet0", ""),
    libvirt_filters_by_older_tools: ("libvirt-rules", "wrong", "beside ours: FI-vnet0", ""),
    libvirt_filters_others: ("libvirt-rules", "", "", ""),
    twin_missing: ("libvirt-rules", "wrong", "clean-traffic, which web names, has no twin in libvirt", ""),
    twin_with_rules: (
        "libvirt-rules",
        "hint",
        "clean-traffic.xml has rules of its own",
        f"echo \"<filter name='clean-traffic'>{UUID}</filter>\" | virsh nwfilter-define /dev/stdin",
    ),
    twin_as_it_should_be: ("libvirt-rules", "", "", ""),
    docker_and_br_netfilter: (
        "br-netfilter",
        "wrong",
        "packets of all bridges meet iptables, too, where ip filter FORWARD (Docker) drops",
        "sysctl -w net.bridge.bridge-nf-call-iptables=0",
    ),
    older_docker_and_one_bridge: (
        "br-netfilter",
        "wrong",
        "packets of bridge br0 meet iptables, too, where iptables-legacy filter FORWARD (Docker) drops",
        "ip link set br0 type bridge nf_call_iptables 0",
    ),
    firewalld_and_br_netfilter: ("br-netfilter", "wrong", "inet firewalld filter_FORWARD (firewalld) drops", ""),
    docker_alone: ("br-netfilter", "", "", ""),
    br_netfilter_alone: ("br-netfilter", "", "", ""),
    br_netfilter_and_a_chain: (
        "br-netfilter",
        "hint",
        "packets of all bridges meet iptables, too: ip filter FORWARD",
        "",
    ),
    docker_where_the_host_routes: (
        "forward-policy",
        "hint",
        "ip filter FORWARD, which Docker has made, drops by policy; the host routes for br0",
        "iptables -I DOCKER-USER -i br0 -j ACCEPT; iptables -I DOCKER-USER -o br0 -j ACCEPT",
    ),
    open_policy_where_the_host_routes: ("forward-policy", "", "", ""),
    foreign_drop: (
        "foreign-tables",
        "hint",
        "table bridge x decides about guests' frames: c (forward, priority -5); in it is drop",
        "nft list table bridge x",
    ),
    foreign_policy: ("foreign-tables", "hint", "c (forward, priority 7); in it is drop", ""),
    foreign_accept_on_a_tap: (
        "foreign-tables",
        "hint",
        "table netdev y decides about guests' frames: c (ingress, priority -9); in it is accept",
        "nft list table netdev y",
    ),
    foreign_tables_elsewhere: ("foreign-tables", "", "", ""),
    the_shield: ("foreign-tables", "", "", ""),
    hook_that_prints: ("other-hooks", "hint", "qemu.d/10-backup:4 seems to print to standard output: echo done", ""),
    hook_in_python_that_prints: ("other-hooks", "hint", "10-backup:3 seems to print", ""),
    hooks_that_print_elsewhere: ("other-hooks", "", "", ""),
    kernel_of_2010: ("back-end", "hint", "for want of CONFIG_NF_CONNTRACK_BRIDGE, but ebtables and iptables could", ""),
    kernel_of_today: ("back-end", "", "", ""),
}
"""What is made, to check, level, words of the finding and command ("" for any); no level: nothing is found."""


@pytest.mark.parametrize("make", CASES, ids=lambda make: str(make.__name__))
def test_what_is_found(ward: Ward, make: Callable[[Ward], None]) -> None:
    """A fault is one finding of the check that it is for; what is like it and no fault is none."""
    check, level, words, command = CASES[make]
    make(ward)
    if level:
        ward.finds(check, level, words, command or None)
    else:
        assert ward.findings(check) == []


def test_docker_where_nobody_is_routed(ward: Ward) -> None:
    """A bridge without an address of the host's has nothing to do with what is forwarded."""
    iptables(ward, *DOCKER)
    assert ward.findings("forward-policy") == []


def test_interfaces_of_others_are_left_alone(ward: Ward) -> None:
    """libvirt may know guests that ask for nothing; their taps in foreign tables are no matter of ours."""
    ward.runs("web", WEB, interface("vnet7", None, mac=OTHER))
    assert ward.findings("unfiltered-guests", "foreign-tables") == []
