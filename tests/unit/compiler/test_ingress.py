"""What stands at a tap's ingress: the rules of layer 2 that a frame to a reserved address can meet."""

from __future__ import annotations

from nwfilter_hook.ruleset.model import Attachment, Stage
from tests.unit.compiling import compiled, filter_xml, rule_xml, spelled

HEAD = [
    "ether-dst&ff:ff:ff:ff:ff:f0!=01:80:c2:00:00:00 accept",
    *(f"ether-type={number} drop" for number in ("0x800", "0x806", "0x8035", "0x86dd")),
]


def ingress(*rules: str, chain: str = "root", attachment: Attachment = Attachment.BRIDGE_PORT) -> dict[str, list[str]]:
    """Chain name to rules of what stands there for a filter of `rules`, without what stands there for every filter."""
    ruleset = compiled(filter_xml(*rules, chain=chain), ingress=True, attachment=attachment)
    found = {name: lines for name, lines in spelled(ruleset).items() if name.split("/")[0] == Stage.INGRESS.value}
    if found:
        assert found["ingress"][: len(HEAD)] == HEAD
        found["ingress"] = found["ingress"][len(HEAD) :]
    return found


def test_rules_of_layer_2_stand_there_too() -> None:
    """In their order, and nothing behind one that every frame meets."""
    rules = (
        rule_xml("<mac match='no' srcmacaddr='$MAC'/>"),
        rule_xml("<mac protocolid='0x88cc'/>", action="accept"),
        rule_xml(),
        rule_xml("<mac protocolid='0x88cd'/>", action="accept"),
    )
    assert ingress(*rules) == {
        "ingress": ["ether-src!=52:54:00:00:00:01 drop", "ether-type=0x88cc accept", "drop"],
    }


def test_what_no_such_frame_can_meet_does_not_stand_there() -> None:
    """Rules about IP and ARP, about other destinations, and about what the guest gets."""
    rules = (
        rule_xml("<ip srcipaddr='$IP'/>", action="accept"),
        rule_xml("<arp/>", action="accept"),
        rule_xml("<mac dstmacaddr='ff:ff:ff:ff:ff:ff'/>", action="accept"),
        rule_xml("<mac dstmacaddr='33:33:0:0:0:0' dstmacmask='ff:ff:0:0:0:0'/>", action="accept"),
        rule_xml("<mac protocolid='0x88cc'/>", direction="in", action="accept"),
    )
    assert ingress(*rules) == {"ingress": []}


def test_what_every_such_frame_meets_is_not_asked_for() -> None:
    """A group address is one; one of the sixteen has to be asked for."""
    group = rule_xml("<mac dstmacaddr='01:80:0:0:0:0' dstmacmask='ff:ff:0:0:0:0'/>")
    assert ingress(group) == {"ingress": ["drop"]}
    stp = rule_xml("<mac dstmacaddr='01:80:c2:00:00:00'/>", action="accept")
    assert ingress(stp) == {"ingress": ["ether-dst=01:80:c2:00:00:00 accept"]}
    range_of_four = rule_xml("<mac match='no' dstmacaddr='01:80:c2:0:0:0' dstmacmask='ff:ff:ff:ff:ff:fc'/>")
    assert ingress(range_of_four) == {"ingress": ["ether-dst&ff:ff:ff:ff:ff:fc!=01:80:c2:00:00:00 drop"]}


def test_a_learned_address_is_unknown_there() -> None:
    """No address teaches, and none is taken for learned."""
    rules = (rule_xml("<rarp arpsrcipaddr='$IP'/>", action="return"), rule_xml("<mac protocolid='0x88cc'/>"))
    assert ingress(*rules) == {"ingress": ["ether-type=0x88cc drop"]}


def test_sub_chains_follow_where_they_are_reached() -> None:
    """The chain of a frame type that can come there, with what it leads to."""
    lldp = rule_xml("<mac protocolid='0x88cc'/>", action="return")
    assert ingress(lldp, rule_xml("<mac srcmacaddr='$MAC'/>"), chain="mac-x") == {
        "ingress": ["jump mac-x"],
        "ingress/mac-x": ["ether-type=0x88cc return", "ether-src=52:54:00:00:00:01 drop"],
    }
    assert ingress(rule_xml("<ip/>", action="return"), rule_xml("<ip dscp='1'/>"), chain="ipv4") == {"ingress": []}


def test_layer_3_alone_keeps_ip_out() -> None:
    """Such frames never meet the rules of layer 3, so IP in them is dropped."""
    assert ingress(rule_xml("<tcp/>", direction="out")) == {"ingress": []}


def test_where_there_is_nothing_to_judge() -> None:
    """A guest that is only kept from getting something, and a device that is no bridge port."""
    assert ingress(rule_xml("<mac/>", direction="in")) == {}
    assert ingress(rule_xml(), attachment=Attachment.DEVICE) == {}
