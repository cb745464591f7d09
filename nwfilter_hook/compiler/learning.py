"""
$IP and $IPV6 without a value: which packets set them, and what the guest may send before.

In:  a reference's parameters; the chains of a tap whose rules compare with learned addresses.
Out: a `Learning`; the chains with the rules that learn, all of them in force from the first frame.

    $IP, mode any     what the guest itself sends first, in IPv4 or ARP, under its own MAC
    $IP, mode dhcp    what a DHCP server acknowledges toward the guest; before that the guest may only speak DHCP,
                      and always in its own name only (dhcp_questions)
    $IPV6             what the guest itself sends, or asks for in duplicate address detection; fe80::/64 with the
                      interface identifier of its MAC is its own from the beginning, and no other link-local address
                      is learned unless the interface asks for it

Learned addresses are elements of named sets (model.NamedSet); the kernel stores them when a frame passes a LEARN rule.
Nothing here reads a file, a clock or the kernel. RFC 2131 (DHCP), RFC 4861 and 4862 (IPv6), RFC 5227 (ARP probes).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..base.addresses import link_local, prefix_mask
from ..base.dataclass import replace
from ..filters.learning import Learning
from ..filters.model import Prefix
from ..ruleset.fields import Field, ValueType
from ..ruleset.model import Chain, Equals, InSet, Masked, Match, NamedSet, Rule, Segment, SetPurpose, Stage, Verdict
from ..ruleset.numbers import DHCP_CLIENT_PORT, DHCP_COOKIE, DHCP_SERVER_PORT, EtherType, Protocol
from .dhcp_questions import question_chains, question_rules
from .dhcp_types import message_types
from .implied import ARP_LENGTHS, ARP_OF_ETHERNET, ARP_OF_IPV4

_BROADCAST = 0xFFFFFFFFFFFF
_BOOTREPLY = 2
_ACK = 5
_SOLICITATION = 135
_IPV6_FIELDS = (Field.IP6_SRC, Field.ND_TARGET)

_IPV4 = Match(Field.ETHER_TYPE, Equals(EtherType.IPV4))
_LEASED = Match(Field.TAP, InSet(NamedSet(SetPurpose.LEASED, "", ValueType.INTERFACE)))
_NOT_LEASED = Match(_LEASED.field, _LEASED.test, negated=True)
_UNREAD = NamedSet(SetPurpose.UNREAD, "", ValueType.IPV4, size=8)


def learned_sets(chains: Iterable[Chain]) -> list[NamedSet]:
    """The sets of learned addresses that rules compare with, by first appearance."""
    return list(
        dict.fromkeys(
            match.test.set
            for chain in chains
            for rule in chain.rules
            for match in rule.matches
            if isinstance(match.test, InSet) and match.test.set.purpose is SetPurpose.LEARNED
        )
    )


def learned_kinds(chains: Iterable[Chain]) -> frozenset[ValueType]:
    """What kinds of addresses are learned for these chains."""
    return frozenset(named.kind for named in learned_sets(chains))


def with_learning(
    chains: list[Chain], mac: int, learning: Learning, kinds: frozenset[ValueType], segment: Segment
) -> list[Chain]:
    """
    `chains`, with the rules that fill the learned sets in front of what they hold already.

    Args:
        mac: the guest's; what is sent under another teaches nothing.
        kinds: of addresses; the others are learned elsewhere.
        segment: where the tap is.
    """
    if not kinds:
        return chains
    chains = [_complete(chain, mac, learning, kinds, segment) for chain in chains]
    used = [named for named in learned_sets(chains) if named.kind in kinds]
    added: dict[Stage, list[Chain]] = {}
    head: dict[Stage, list[Rule]] = {}
    stores = _stores(used, ValueType.IPV4, mac, learning, segment)
    learning_rules = _LearningRules(mac, _first_user(chains, ValueType.IPV4), learning.fixed)
    if stores and learning.mode == "dhcp":
        head[Stage.FROM_L2] = [*learning_rules.only_dhcp_out(), *learning_rules.first_use(stores, rechecks=True)]
        head[Stage.TO_L2] = list(learning_rules.only_leases_in(learning))
        added[Stage.TO_L2] = learning_rules.lease_chains(stores)
        added[Stage.FROM_L2] = question_chains(learning_rules.rule, mac, (InSet(stores[0]), *learning_rules.fixed))
        for stage, rule in learning_rules.dhcp_at_layer_3():
            if any(chain.stage is stage for chain in chains):
                head[stage] = [rule]
    elif stores:
        head[Stage.FROM_L2] = list(learning_rules.first_use(stores))
    stores = _stores(used, ValueType.IPV6, mac, learning, segment)
    learning_rules = _LearningRules(mac, _first_user(chains, ValueType.IPV6), learning.ipv6_fixed)
    if stores:
        head.setdefault(Stage.FROM_L2, []).extend(learning_rules.ipv6(stores, learning))
    return list(_merged(chains, head, added))


def _first_user(chains: Iterable[Chain], kind: ValueType) -> Rule | None:
    """The first rule that compares with a learned address of this kind."""
    for chain in chains:
        for rule in chain.rules:
            for match in rule.matches:
                named = match.test.set if isinstance(match.test, InSet) else None
                if named is not None and named.purpose is SetPurpose.LEARNED and named.kind is kind:
                    return rule
    return None


def _complete(chain: Chain, mac: int, learning: Learning, kinds: frozenset[ValueType], segment: Segment) -> Chain:
    """The chain, its learned sets as large as `learning` says."""

    def complete(match: Match) -> Match:
        test = match.test
        if not isinstance(test, InSet) or test.set.purpose is not SetPurpose.LEARNED or test.set.kind not in kinds:
            return match
        return Match(match.field, InSet(_spec(test.set, mac, learning, segment), test.fields), match.negated)

    rules = (replace(rule, matches=tuple(complete(match) for match in rule.matches)) for rule in chain.rules)
    return Chain(chain.stage, chain.name, tuple(rules))


def _spec(named: NamedSet, mac: int, learning: Learning, segment: Segment) -> NamedSet:
    named = replace(named, segment=segment.name, guest=segment.guest if segment.name else "")
    if named.kind is ValueType.IPV4:
        if learning.mode == "dhcp":
            return replace(named, size=1, newest=True)
        return replace(named, size=learning.maximum)
    own = link_local(mac)
    return replace(named, size=learning.ipv6_maximum, initial=(own if named.mask is None else own & named.mask,))


def _stores(
    used: Sequence[NamedSet], kind: ValueType, mac: int, learning: Learning, segment: Segment
) -> tuple[NamedSet, ...]:
    """
    The sets to store an address in. First the one of whole addresses, used or not: it is full when enough are known,
    and then nothing goes to those of masked ones.
    """
    found = [named for named in used if named.kind is kind]
    whole = [_spec(NamedSet(SetPurpose.LEARNED, "", kind), mac, learning, segment)] if found else []
    return tuple(dict.fromkeys((*whole, *found)))


def _merged(chains: Sequence[Chain], head: dict[Stage, list[Rule]], added: dict[Stage, list[Chain]]) -> Iterator[Chain]:
    for stage in Stage:
        mine = [chain for chain in chains if chain.stage is stage]
        rules = tuple(head.get(stage, ()))
        root = next((chain.rules for chain in mine if chain.name is None), ())
        if rules or root:
            yield Chain(stage, None, rules + root)
        yield from (chain for chain in mine if chain.name is not None)
        yield from added.get(stage, ())


class _LearningRules:
    """
    The rules that learn, all with the provenance of `user`, the first rule that needs the address.

    Args:
        fixed: addresses that the guest has anyway: they teach nothing.
    """

    def __init__(self, mac: int, user: Rule | None, fixed: Sequence[int | Prefix]) -> None:
        self._mac = mac
        self._user = user
        self.fixed = tuple(
            Masked(each.mask, each.address) if isinstance(each, Prefix) else Equals(each) for each in fixed
        )
        self._own = Match(Field.ETHER_SRC, Equals(mac))

    def rule(self, matches: Iterable[Match], verdict: Verdict, target: str | None = None) -> Rule:
        """A rule with the user's provenance."""
        assert self._user is not None
        return Rule(tuple(matches), verdict, self._user.filter, self._user.source, target)

    def _learn(self, field: Field, matches: Iterable[Match], stores: Iterable[NamedSet], leased: bool = False) -> Rule:
        targets = tuple((field, named) for named in stores)
        if leased:
            assert isinstance(_LEASED.test, InSet)
            targets += ((Field.TAP, _LEASED.test.set),)
        return replace(self.rule(matches, Verdict.LEARN), stores=targets)

    def _new(self, field: Field) -> Iterator[Match]:
        """An address that a host can have, and the guest hasn't."""
        yield from _unicast(field)
        yield from (Match(field, test, negated=True) for test in self.fixed)

    def first_use(self, stores: Sequence[NamedSet], *, rechecks: bool = False) -> Iterator[Rule]:
        """An IPv4 packet teaches its source, an ARP frame its sender (0.0.0.0 in a probe, and so nothing)."""
        for rule in self._first_use(stores):
            yield replace(rule, rechecks=rechecks)

    def _first_use(self, stores: Sequence[NamedSet]) -> Iterator[Rule]:
        yield self._learn(Field.IP_SRC, (self._own, _IPV4, *self._new(Field.IP_SRC)), stores)
        ethernet_arp = (
            Match(Field.ETHER_TYPE, Equals(EtherType.ARP)),
            ARP_OF_ETHERNET,
            ARP_OF_IPV4,
            *ARP_LENGTHS,
            Match(Field.ARP_SRC_MAC, Equals(self._mac)),
        )
        yield self._learn(Field.ARP_SRC_IP, (self._own, *ethernet_arp, *self._new(Field.ARP_SRC_IP)), stores)

    def ipv6(self, stores: Sequence[NamedSet], learning: Learning) -> Iterator[Rule]:
        """
        An IPv6 packet teaches its source. A solicitation from "::" teaches its target: that is duplicate address
        detection, the first thing that a guest does with an address.
        """
        ipv6 = Match(Field.ETHER_TYPE, Equals(EtherType.IPV6))
        link_local = {} if learning.link_local else {field: _not_link_local(field) for field in _IPV6_FIELDS}
        source, target = ((*self._new(field), *link_local.get(field, ())) for field in _IPV6_FIELDS)
        yield self._learn(Field.IP6_SRC, (self._own, ipv6, *source), stores)
        detection = (
            self._own,
            ipv6,
            Match(Field.IP6_SRC, Equals(0)),
            Match(Field.L4_PROTOCOL, Equals(Protocol.ICMPV6)),
            Match(Field.ICMPV6_TYPE, Equals(_SOLICITATION)),
            Match(Field.IP6_NEXT_HEADER, Equals(Protocol.ICMPV6)),
            *target,
        )
        yield self._learn(Field.ND_TARGET, detection, stores)

    def only_dhcp_out(self) -> Iterator[Rule]:
        """
        Without a lease the guest may ask for one and nothing else; with or without, it asks in no other name and never
        answers itself.
        """
        yield from question_rules(self.rule)
        yield self.rule((self._own, *_dhcp(DHCP_CLIENT_PORT, DHCP_SERVER_PORT), _NOT_LEASED), Verdict.ACCEPT)
        yield self.rule((_NOT_LEASED,), Verdict.DROP)

    def only_leases_in(self, learning: Learning) -> Iterator[Rule]:
        """
        Answers of the servers teach. Without a lease they arrive whatever the rest of the rules says, and nothing else
        does; with one the rest decides.
        """
        servers: list[tuple[Match, ...]] = [(Match(Field.IP_SRC, Equals(server)),) for server in learning.servers] or [
            ()
        ]
        for ether_dst in (self._mac, _BROADCAST):
            for server in servers:
                answer = (
                    Match(Field.ETHER_DST, Equals(ether_dst)),
                    *_dhcp(DHCP_SERVER_PORT, DHCP_CLIENT_PORT, *server),
                )
                yield self.rule((*answer, _NOT_LEASED), Verdict.JUMP, "dhcp-first")
                yield self.rule((*answer, _LEASED), Verdict.JUMP, "dhcp")
        yield self.rule((_NOT_LEASED,), Verdict.DROP)

    def lease_chains(self, stores: Sequence[NamedSet]) -> list[Chain]:
        """
        "dhcp" looks whether the answer is for this guest, "dhcp-reply" for the message type, which most servers send
        as the first option. An answer without one in reach teaches nothing, but is remembered for people to see.
        """
        to_guest = (
            Match(Field.DHCP_OP, Equals(_BOOTREPLY)),
            Match(Field.DHCP_CLIENT, Equals(self._mac)),
            Match(Field.DHCP_COOKIE, Equals(DHCP_COOKIE)),
            *_unicast(Field.DHCP_ADDRESS),
        )
        types: list[Rule] = []
        for ack_test, any_test in zip(message_types(_ACK), message_types(None)):
            # the first that is found decides
            types.append(self.rule((Match(Field.DHCP_OPTIONS, ack_test),), Verdict.JUMP, "dhcp-ack"))
            types.append(self.rule((Match(Field.DHCP_OPTIONS, any_test),), Verdict.RETURN))
        ack = self._learn(Field.DHCP_ADDRESS, (), stores, leased=True)
        unread = self._learn(Field.DHCP_ADDRESS, (), [_UNREAD])
        first = (self.rule((), Verdict.JUMP, "dhcp"), self.rule((), Verdict.ACCEPT))
        return [
            Chain(Stage.TO_L2, "dhcp-first", first),
            Chain(Stage.TO_L2, "dhcp", (self.rule(to_guest, Verdict.JUMP, "dhcp-reply"),)),
            Chain(Stage.TO_L2, "dhcp-reply", (*types, unread)),
            Chain(Stage.TO_L2, "dhcp-ack", (ack,)),
        ]

    def dhcp_at_layer_3(self) -> Iterator[tuple[Stage, Rule]]:
        """Without a lease DHCP passes layer 3 too; everything else is dropped at layer 2."""
        yield Stage.FROM_L3, self.rule((*_dhcp(DHCP_CLIENT_PORT, DHCP_SERVER_PORT), _NOT_LEASED), Verdict.ACCEPT)
        yield Stage.TO_L3, self.rule((*_dhcp(DHCP_SERVER_PORT, DHCP_CLIENT_PORT), _NOT_LEASED), Verdict.ACCEPT)


def _dhcp(source_port: int, destination_port: int, *more: Match) -> tuple[Match, ...]:
    return (
        _IPV4,
        *more,
        Match(Field.IP_PROTOCOL, Equals(Protocol.UDP)),
        Match(Field.SRC_PORT, Equals(source_port)),
        Match(Field.DST_PORT, Equals(destination_port)),
    )


def _unicast(field: Field) -> tuple[Match, ...]:
    """
    An address that a host can have for good: not unspecified, loopback, multicast or reserved (all of ::/8 is, for
    IPv6), nor one that an IPv4 host invents while nobody gives it one (RFC 3927).
    """
    if field.kind is ValueType.IPV4:
        return (
            Match(field, Equals(0), negated=True),
            Match(field, Masked(prefix_mask(8, 32), 127 << 24), negated=True),
            Match(field, Masked(prefix_mask(16, 32), 0xA9FE0000), negated=True),
            Match(field, Masked(prefix_mask(3, 32), 0xE0000000), negated=True),
        )
    return (
        Match(field, Masked(prefix_mask(8, 128), 0), negated=True),
        Match(field, Masked(prefix_mask(8, 128), 0xFF << 120), negated=True),
    )


def _not_link_local(field: Field) -> tuple[Match, ...]:
    """An IPv6 address that isn't of fe80::/10."""
    return (Match(field, Masked(prefix_mask(10, 128), 0xFE80 << 112), negated=True),)
