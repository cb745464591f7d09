"""libvirtd restarts: what the kernel has lost or gained meanwhile is repaired, what can't be is closed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.domains import domain, interface, learned_set
from tests.support.host import (
    BYSTANDER,
    BYSTANDER_TAP,
    FILTER,
    GUEST,
    HOOK,
    NOT_XML,
    OWN_SYSFS,
    TAP,
    Sandbox,
    guest_xml,
)

pytestmark = pytest.mark.hook

OURS = "bridge nwfilter"


def handle_of(box: Sandbox, chain: str, index: int = 0) -> int:
    """The handle of a rule, by its position."""
    lines = [json.loads(line).get("rule") for line in box.kernel(TAP, exact=True)]
    return int([rule["handle"] for rule in lines if rule and rule["chain"] == chain][index])


def flush_tap(tap: str = TAP) -> Callable[[Sandbox], str]:
    """Every chain of the tap is empty."""
    return lambda box: "".join(f"flush chain {OURS} {chain}\n" for chain in box.chains(tap))


def replace_element(verdict: str) -> Callable[[Sandbox], str]:
    """The tap's map element has another verdict."""
    key = f'{OURS} from-guest-l2 {{ "{TAP}"'
    return lambda box: f"delete element {key} }}\nadd element {key} : {verdict} }}\n"


def remove_chain(chain: str) -> Callable[[Sandbox], str]:
    """A sub-chain is gone, and the jump to it."""

    def script(box: Sandbox) -> str:
        rules = [json.loads(line).get("rule") for line in box.kernel(TAP, exact=True)]
        jumps = [rule for rule in rules if rule and f'"target": "{chain}"' in json.dumps(rule["expr"])]
        deletions = [f"delete rule {OURS} {rule['chain']} handle {rule['handle']}\n" for rule in jumps]
        return "".join([*deletions, f"flush chain {OURS} {chain}\n", f"delete chain {OURS} {chain}\n"])

    return script


TAMPERED: dict[str, Callable[[Sandbox], str]] = {
    "chains-flushed": flush_tap(),
    "rule-deleted": lambda box: f"delete rule {OURS} from/{TAP} handle {handle_of(box, f'from/{TAP}')}\n",
    "last-rule-deleted": lambda box: f"delete rule {OURS} from/{TAP} handle {handle_of(box, f'from/{TAP}', -1)}\n",
    "accept-inserted": lambda box: f"insert rule {OURS} from/{TAP} accept\n",
    "accept-inserted-below": lambda box: f"insert rule {OURS} to/{TAP} ip saddr 192.0.2.1 accept\n",
    "accept-in-disguise": lambda box: (
        f'replace rule {OURS} from/{TAP} handle {handle_of(box, f"from/{TAP}")} accept comment "clean-traffic:20"\n'
    ),
    "element-deleted": lambda box: f'delete element {OURS} from-guest-l2 {{ "{TAP}" }}\n',
    "element-deleted-of-to": lambda box: f'delete element {OURS} to-guest-l2 {{ "{TAP}" }}\n',
    "element-accepts": replace_element("accept"),
    "element-leads-elsewhere": replace_element(f"jump to/{TAP}"),
    "base-rule-deleted": lambda box: f"flush chain {OURS} l2-prerouting\n",
    "base-rule-deleted-of-to": lambda box: f"flush chain {OURS} l2-postrouting\n",
    "base-accept-inserted": lambda box: f"insert rule {OURS} l2-prerouting accept\n",
    "base-chain-deleted": lambda box: f"flush chain {OURS} l2-prerouting\ndelete chain {OURS} l2-prerouting\n",
    "sub-chain-deleted": lambda box: remove_chain(box.chains(TAP)[1])(box),
}
"""Name to the script of somebody who tampers with the guest's rules, leaving other guests' alone."""


@pytest.mark.parametrize("name", TAMPERED)
def test_what_somebody_changed_is_put_back(box: Sandbox, name: str) -> None:
    """reconnect finds what isn't as recorded, repairs it, says so, and libvirt hears of no failure."""
    xml = box.running()
    clean = box.kernel()
    box.nft_script(TAMPERED[name](box))
    assert box.kernel() != clean
    box.hook(GUEST, "reconnect", xml).excused(GUEST, TAP, "repaired")
    assert box.kernel() == clean
    box.check_tidy()
    box.hook(GUEST, "reconnect", xml).fine()


@pytest.mark.parametrize("name", ["element-accepts", "element-leads-elsewhere", "accept-inserted"])
def test_what_somebody_changed_is_no_trouble_at_start_and_stop(box: Sandbox, name: str) -> None:
    """start puts back what somebody changed, and stopped removes it."""
    xml = box.running()
    clean = box.kernel()
    box.nft_script(TAMPERED[name](box))
    box.hook(GUEST, "start", xml).fine()
    assert box.kernel() == clean
    box.nft_script(TAMPERED[name](box))
    box.stop()
    box.assert_nothing_left()


def test_a_match_somebody_changed_is_put_back(box: Sandbox) -> None:
    """A rule whose comment and verdict are ours, but which matches other frames, is not ours."""
    xml = box.running(filter_name="no-mac-spoofing")
    clean = box.kernel()
    lines = box.nft("--handle", "list", "chain", *OURS.split(), f"from/{TAP}").splitlines()
    line = next(line.strip() for line in lines if "drop" in line and "handle" in line and "comment" in line)
    words, _, handle = line.rpartition(" # handle ")
    verdict_and_comment = words[words.index("drop") :]
    box.nft_script(
        f"replace rule {OURS} from/{TAP} handle {handle} ether saddr 02:00:00:00:00:99 counter {verdict_and_comment}\n"
    )
    assert box.kernel() != clean
    assert box.hook(GUEST, "reconnect", xml).status == 0
    assert box.kernel() == clean


@pytest.mark.parametrize("script", ["flush ruleset\n", f"delete table {OURS}\n", f"flush table {OURS}\n"])
def test_a_flushed_table_is_filled_again(box: Sandbox, script: str) -> None:
    """When table or rules of all guests are gone, the first guest's reconnect brings everybody's back."""
    xml = box.running()
    clean = box.kernel()
    box.forget_bystander()
    box.nft_script(script)
    box.hook(GUEST, "reconnect", xml).excused("repaired")
    assert box.kernel() == clean
    for guest, tap in ((GUEST, TAP), (BYSTANDER, BYSTANDER_TAP)):
        box.hook(guest, "reconnect", guest_xml(guest, tap)).fine()


def test_what_is_in_force_is_left_alone(box: Sandbox) -> None:
    """When all is as recorded, reconnect changes nothing, not even a handle or a counter, and says nothing."""
    xml = box.running()
    with box.unchanged():
        box.hook(GUEST, "reconnect", xml).fine()


def test_what_was_learned_survives_a_repair(box: Sandbox) -> None:
    """A repair forgets no learned address: a running guest doesn't get a second choice."""
    xml = box.running()
    box.nft_script(f"add element {OURS} {learned_set(GUEST, TAP)} {{ 0x0a090807 }}\nflush chain {OURS} from/{TAP}\n")
    box.hook(GUEST, "reconnect", xml).excused("repaired")
    assert "0xa090807" in box.nft("list", "set", *OURS.split(), learned_set(GUEST, TAP))
    box.hook(GUEST, "start", xml).fine()
    assert "0xa090807" not in box.nft("list", "set", *OURS.split(), learned_set(GUEST, TAP))


# --- the filter is gone -----------------------------------------------------------------------------------------------


def mine(box: Sandbox, *, there: bool = True) -> str:
    """A guest under a filter of the administrator's; its XML."""
    if there:
        box.write_filter("mine", "<rule action='drop' direction='out'><mac srcmacaddr='$MAC' match='no'/></rule>")
    else:
        (box.filters / "mine.xml").unlink()
    return guest_xml(filter_name="mine")


def test_a_filter_that_is_gone_stays_in_force(box: Sandbox) -> None:
    """When a filter's file is gone but the kernel has its rules, they stay as they are."""
    xml = mine(box)
    box.hook(GUEST, "start", xml).fine()
    mine(box, there=False)
    with box.unchanged():
        assert box.hook(GUEST, "reconnect", xml).status == 0


def test_a_filter_that_cant_be_made_closes_the_tap(box: Sandbox) -> None:
    """When file and record are gone the tap is closed both ways; when the file is back, reconnect opens it again."""
    xml = mine(box)
    box.hook(GUEST, "start", xml).fine()
    clean = box.kernel()
    mine(box, there=False)
    box.record_path().unlink()
    box.hook(GUEST, "reconnect", xml).excused(GUEST, TAP, "quarantine", "mine")
    assert box.quarantined()
    assert box.record()["bindings"][0]["quarantined"] is True
    box.hook(GUEST, "reconnect", xml).excused("quarantine")
    assert box.quarantined()
    mine(box)
    box.hook(GUEST, "reconnect", xml).excused(TAP, "no longer quarantined; filtered by mine")
    assert box.kernel() == clean
    box.check_tidy()
    box.hook(GUEST, "reconnect", xml).fine()


@pytest.mark.parametrize("operation", ["stopped", "start"])
def test_a_closed_tap_doesnt_outlive_its_guest(box: Sandbox, operation: str) -> None:
    """A quarantine ends with the guest's end or its next good start."""
    box.hook(GUEST, "reconnect", mine(box, there=True).replace("mine", "no-such")).excused("quarantine")
    assert box.quarantined()
    if operation == "start":
        box.start()
        assert not box.quarantined()
    box.stop()
    box.assert_nothing_left()


def test_only_the_tap_that_cant_be_repaired_is_closed(box: Sandbox) -> None:
    """Of two taps that nothing is known of, the one whose filter is there is repaired, the other one closed."""
    mine(box)
    xml = domain(GUEST, [interface(TAP, "mine"), interface("vnet1", FILTER, mac="52:54:00:00:00:02")])
    box.hook(GUEST, "start", xml).fine()
    healthy = box.kernel("vnet1")
    mine(box, there=False)
    box.record_path().unlink()
    ran = box.hook(GUEST, "reconnect", xml)
    ran.excused(TAP, "quarantine")
    ran.excused("vnet1", "was not filtered; now it is, by clean-traffic")
    assert box.quarantined(TAP)
    assert box.kernel("vnet1") == healthy


def test_a_refused_repair_closes_the_tap(box: Sandbox) -> None:
    """When nft refuses the guest's rules but not a plain drop, the tap is closed."""
    xml = box.running()
    box.nft_script(flush_tap()(box))
    box.fake_nft('input=$(cat); case "$input" in *learned*add\\ rule*ether*) exit 1;; esac; echo "$input" | $NFT "$@"')
    box.hook(GUEST, "reconnect", xml).excused(TAP, "quarantine")
    assert box.quarantined()


# --- the XML is no use ------------------------------------------------------------------------------------------------


def test_a_useless_xml_and_no_rules(box: Sandbox) -> None:
    """With garbage for XML and the rules gone, what the guest's record says is put back."""
    box.running()
    clean = box.kernel()
    box.nft_script(flush_tap()(box))
    box.hook(GUEST, "reconnect", NOT_XML).excused(GUEST, "repaired")
    assert box.kernel() == clean


def test_a_useless_xml_and_rules_that_nft_refuses_closes_the_tap(box: Sandbox) -> None:
    """If what the record says can't be put back, even where the table is gone, the taps of the record are closed."""
    box.running()
    box.forget_bystander()
    box.nft_script(f"delete table {OURS}\n")
    box.fake_nft('input=$(cat); case "$input" in *learned*add\\ rule*ether*) exit 1;; esac; echo "$input" | $NFT "$@"')
    box.hook(GUEST, "reconnect", NOT_XML).excused(GUEST, "quarantine")
    assert box.quarantined()
    box.hook(GUEST, "stopped", guest_xml(GUEST, None)).fine()
    box.assert_nothing_left_of_tap(TAP)


def test_a_useless_interface_is_closed_alone(box: Sandbox) -> None:
    """An interface whose MAC or reference is wrong is closed; its neighbour gets its filter."""
    xml = domain(GUEST, [interface(TAP, FILTER, mac="no-mac"), interface("vnet1", FILTER, mac="52:54:00:00:00:02")])
    ran = box.hook(GUEST, "reconnect", xml)
    ran.excused(TAP, "quarantine")
    assert box.quarantined(TAP)
    assert box.in_force("vnet1")
    assert not box.quarantined("vnet1")


@pytest.mark.parametrize(
    "broken",
    [
        "<interface type='user'><mac address='52:54:00:00:00:09'/><filterref filter='clean-traffic'/></interface>",
        interface("much-too-long-a-name", FILTER, mac="52:54:00:00:00:09"),
        interface(None, FILTER, mac="52:54:00:00:00:09"),
        "<interface type='vhostuser'><mac address='52:54:00:00:00:09'/><target dev='vhost-user1'/>"
        "<filterref filter='clean-traffic'/></interface>",
    ],
    ids=("no-tap-on-the-host", "wrong-tap", "no-tap", "no-device"),
)
def test_an_interface_that_cant_be_closed_doesnt_leave_its_neighbour_open(box: Sandbox, broken: str) -> None:
    """An interface that has no usable tap is reported; the guest's other interface gets its filter all the same."""
    xml = domain(GUEST, [broken, interface(TAP, FILTER)])
    box.hook(GUEST, "reconnect", xml).excused(GUEST, "can't be quarantined")
    assert box.in_force()
    assert not box.quarantined()
    assert box.chains("vhost-user1") == []


def test_a_tap_that_no_bridge_has_is_closed_on_the_device(box: Sandbox) -> None:
    """A port of an agent's, not of a bridge, is no place for a filter: its tap is cut off where all its frames pass."""
    box.plug("tap-mido")
    port = "<virtualport type='midonet'><parameters interfaceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f'/></virtualport>"
    xml = guest_xml(tap="tap-mido").replace("</interface>", f"{port}</interface>")
    command = (*OWN_SYSFS, HOOK)
    box.hook(GUEST, "start", xml, command=command).refused("midonet")
    box.hook(GUEST, "reconnect", xml, command=command).excused("tap-mido: quarantined", "midonet")
    assert box.quarantined("tap-mido")
    rules = [json.loads(line)["rule"] for line in box.kernel("tap-mido") if '"rule"' in line]
    assert {rule["family"] for rule in rules} == {"netdev"}
    box.hook(GUEST, "stopped", xml, command=command).fine()
    box.assert_nothing_left(GUEST, "tap-mido")


def test_wrong_metadata_doesnt_leave_the_guest_open(box: Sandbox) -> None:
    """A reference in metadata that fits no interface is reported, and no tap of the guest is left open."""
    metadata = (
        "<nwf:bindings xmlns:nwf='https://nwfilter-hook.org/xmlns/1'><nwf:interface mac='52:54:00:00:00:77'>"
        "<filterref filter='allow-arp'/></nwf:interface></nwf:bindings>"
    )
    xml = domain(GUEST, [interface(TAP, FILTER)], metadata=metadata)
    box.hook(GUEST, "reconnect", xml).excused(GUEST, "metadata")
    assert box.in_force()


# --- the record is gone, or says something else -----------------------------------------------------------------------


def test_a_guest_that_has_lost_its_reference_loses_its_rules(box: Sandbox) -> None:
    """When the XML names no filter any more, reconnect removes what is there."""
    box.running()
    assert box.hook(GUEST, "reconnect", guest_xml(filter_name=None)).status == 0
    box.assert_nothing_left()


@pytest.mark.parametrize(
    "xml",
    [
        guest_xml(filter_name="no-mac-spoofing"),
        guest_xml(parameters=[("IP", "10.0.0.1")]),
        guest_xml(tap="vnet5"),
        guest_xml(mac="52:54:00:00:00:55"),
        domain(GUEST, [interface(TAP, FILTER), interface("vnet1", FILTER, mac="52:54:00:00:00:02")]),
    ],
    ids=("filter", "parameters", "tap", "mac", "one-more"),
)
def test_what_the_xml_says_wins_over_the_record(box: Sandbox, xml: str) -> None:
    """When the running guest's XML differs from the record, reconnect puts in force what the XML says."""
    box.hook(GUEST, "start", xml).fine()
    clean = box.kernel()
    box.stop()
    box.start()
    assert box.hook(GUEST, "reconnect", xml).status == 0
    assert box.kernel() == clean
    box.check_tidy()


def test_a_device_that_is_no_bridge_port_is_repaired_too(box: Sandbox) -> None:
    """An `ethernet` tap outside a bridge has its filter on the device; reconnect verifies and repairs it there."""
    box.plug("tap-eth0")
    xml = guest_xml(tap="tap-eth0").replace("<interface type='bridge'>", "<interface type='ethernet'>")
    xml = xml.replace('<source bridge="br0"/>', "")
    command = (*OWN_SYSFS, HOOK)
    box.hook(GUEST, "start", xml, command=command).fine()
    clean = box.kernel()
    assert box.in_force("tap-eth0")
    assert '"netdev"' in "\n".join(clean)
    box.hook(GUEST, "reconnect", xml, command=command).fine()
    box.nft_script("flush chain netdev nwfilter from/tap-eth0\n")
    box.hook(GUEST, "reconnect", xml, command=command).excused("repaired")
    assert box.kernel() == clean
    box.nft_script("".join(f"{verb} chain netdev nwfilter from/tap-eth0\n" for verb in ("flush", "delete")))
    box.hook(GUEST, "reconnect", xml, command=command).excused("repaired")
    assert box.kernel() == clean
    box.nft_script("flush chain netdev nwfilter from/tap-eth0\n")
    box.hook(GUEST, "reconnect", xml.replace(FILTER, "no-such"), command=command).excused("old rules stay in force")
    assert box.kernel() == clean
    box.hook(GUEST, "stopped", xml.replace('<target dev="tap-eth0"/>', ""), command=command).fine()
    box.assert_nothing_left(GUEST, "tap-eth0")
