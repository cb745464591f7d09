"""
What a guest whose address is leased may say to a DHCP server: its own MAC, and of addresses its own. RFC 2131.

In:  the guest's MAC, tests for its addresses, and a function that makes a rule with the provenance of the user.
Out: rules for the head of the stage from the guest, and the sub-chains that they jump to.

Whatever the message is wrapped in: behind one VLAN tag it is looked at alike; what can't be looked into (two tags,
802.1ad, SNAP, an Authentication header, UDP whose ports or addresses can't be read) is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ..ruleset.fields import Field
from ..ruleset.model import Between, Chain, Equals, Match, Rule, Stage, Test, Verdict
from ..ruleset.numbers import DHCP_CLIENT_PORT, DHCP_SERVER_PORT, EtherType, Protocol
from .implied import DHCP, ETHERNET_CLIENT, LATER_FRAGMENT, LENGTHS, SNAPS

MakeRule = Callable[..., Rule]
"""(matches, verdict[, target of a jump])"""

NOT_TCP, QUESTION, WRAPPED = "dhcp-not-tcp", "dhcp-question", "dhcp-wrapped"

_BOOTREQUEST = 1
_ANY_CLIENT = (1 << Field.DHCP_CLIENT.bits) - 1
_OTHER_TAGS = (EtherType.VLAN_AD, 0x9100, 0x9200)
"""802.1ad, and what switches used before it."""
_IPV4 = Match(Field.ETHER_TYPE, Equals(EtherType.IPV4))
_IN_TAG = (Match(Field.ETHER_TYPE, Equals(EtherType.VLAN)), Match(Field.VLAN_TYPE, Equals(EtherType.IPV4)))
_FRAMES = ((_IPV4,), _IN_TAG)


def question_rules(make: MakeRule) -> Iterator[Rule]:
    """
    At the head: of IPv4 all but TCP is looked at in NOT_TCP, and what is neither IPv4 nor IPv6 in WRAPPED; both come
    back if nothing is wrong.
    """
    other = (
        Match(_IPV4.field, _IPV4.test, negated=True),
        Match(Field.ETHER_TYPE, Equals(EtherType.IPV6), negated=True),
    )
    yield make((_IPV4, Match(Field.IP_PROTOCOL, Equals(Protocol.TCP), negated=True)), Verdict.JUMP, NOT_TCP)
    yield make(other, Verdict.JUMP, WRAPPED)


def question_chains(make: MakeRule, mac: int, addresses: Iterable[Test]) -> list[Chain]:
    """The sub-chains of the stage from the guest; one of `addresses` holds for an address of its own."""
    return [
        Chain(Stage.FROM_L2, NOT_TCP, tuple(_protocols(make, (_IPV4,)))),
        Chain(Stage.FROM_L2, QUESTION, tuple(_question(make, mac, (Equals(0), *addresses)))),
        Chain(Stage.FROM_L2, WRAPPED, tuple(_wrapped(make))),
    ]


def _question(make: MakeRule, mac: int, owns: Sequence[Test]) -> Iterator[Rule]:
    """Of a datagram: the guest answers no one in its own name, and asks in no other."""
    client = Match(Field.DHCP_CLIENT, Equals(mac))
    server_port, client_port = (
        Match(Field.SRC_PORT, Equals(DHCP_SERVER_PORT)),
        Match(Field.DST_PORT, Equals(DHCP_CLIENT_PORT)),
    )
    yield make((server_port, client_port, client), Verdict.DROP)
    yield make((Match(Field.DST_PORT, Equals(DHCP_SERVER_PORT), negated=True),), Verdict.RETURN)
    for frame in _FRAMES:
        for own in owns:
            yield make(_proper(frame, mac, Match(Field.DHCP_OWN, own)), Verdict.RETURN)
    to_server = Match(Field.DST_PORT, Equals(DHCP_SERVER_PORT))
    yield make((to_server, Match(Field.DHCP_CLIENT, Between(0, _ANY_CLIENT))), Verdict.DROP)
    for frame in _FRAMES:
        # one that ends before a client could stand in it is no DHCP, if nothing more of it follows
        yield make((*frame, *DHCP, to_server), Verdict.RETURN)
        yield make((*frame, LATER_FRAGMENT[False]), Verdict.RETURN)
    yield make((), Verdict.DROP)


def _proper(frame: Iterable[Match], mac: int, own: Match) -> tuple[Match, ...]:
    """A whole message of a client to a server, from the guest and for nobody else."""
    return (
        Match(Field.ETHER_SRC, Equals(mac)),
        *frame,
        *DHCP,
        Match(Field.DST_PORT, Equals(DHCP_SERVER_PORT)),
        Match(Field.DHCP_OP, Equals(_BOOTREQUEST)),
        Match(Field.DHCP_HARDWARE, Equals(ETHERNET_CLIENT)),
        own,
        Match(Field.DHCP_RELAY, Equals(0)),
        Match(Field.DHCP_CLIENT, Equals(mac)),
    )


def _protocols(make: MakeRule, frame: tuple[Match, ...]) -> Iterator[Rule]:
    yield make((*frame, Match(Field.IP_PROTOCOL, Equals(Protocol.UDP))), Verdict.JUMP, QUESTION)
    yield make((*frame, Match(Field.IP_PROTOCOL, Equals(Protocol.AH))), Verdict.DROP)


def _wrapped(make: MakeRule) -> Iterator[Rule]:
    yield from _protocols(make, _IN_TAG)
    for tag in (EtherType.VLAN, *_OTHER_TAGS):
        yield make((_IN_TAG[0], Match(Field.VLAN_TYPE, Equals(tag))), Verdict.DROP)
    for tag in _OTHER_TAGS:
        yield make((Match(Field.ETHER_TYPE, Equals(tag)),), Verdict.DROP)
    for length in ((Match(Field.ETHER_TYPE, LENGTHS),), (_IN_TAG[0], Match(Field.VLAN_TYPE, LENGTHS))):
        for snap in SNAPS:
            yield make((*length, Match(Field.SNAP, Equals(snap))), Verdict.DROP)
