"""
The back end that filters with nftables.

In:  what `backend.py` says. Out: likewise; the kernel is changed by nft and read by netlink.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from ..backend import Backend, Installed, Object, Rendered, Seen, Transaction, Zones
from ..base.errors import NftError, SystemErrorAs
from ..commits import Monitor
from ..guards import Guard, GuardBackend
from ..ruleset.model import Attachment, NamedSet, Ruleset
from . import bounds, generation, learned, script, segments
from .ahead import prepared
from .commands import Operation, Script
from .expressions import with_counts
from .features import SYMBOLS, Features, Remember, needs_of, needs_of_statements
from .fingerprints import fingerprints
from .guard import guard_removal, known
from .guard_listing import NftGuard, bases_of_nobody
from .names import BOUNDS, LOOKUPS, TABLE, is_of_tap
from .netlink import Hook, KernelRule, read_chains, read_elements, read_rules, read_sets, read_verdicts
from .process import Nft
from .sets import MAX_SOURCES, counts_connections, declaration, kind_of, set_name, spelled
from .tracking import bound_of
from .zones import CHAIN, MAP, zone_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ruleset.judged import Sought, Tracer


class NftBackend(Backend):
    """
    nftables on this host.

    Args:
        counters: which rules count packets: "none", "drops" (drop and reject), "all".
        recall, remember: read and write what was found out about kernel and nft.
        connections: how many each guest may have open, see tracking.py.
    """

    def __init__(
        self,
        nft: Nft,
        counters: str,
        recall: Callable[[], Mapping[str, object]],
        remember: Remember,
        connections: str = "none",
    ) -> None:
        self._nft = nft
        self._counters = counters
        self._connections = connections
        self._features = Features(nft, recall, remember)

    @property
    def guard(self) -> GuardBackend:
        return NftGuard(self._features, self._nft)

    def render(self, ruleset: Ruleset) -> Rendered:
        return script.render(ruleset, self._counters, bounded=self._connections != "none")

    def install(
        self,
        anew: Sequence[Rendered] = (),
        *,
        put_back: Iterable[Installed] = (),
        stale: Iterable[Installed] = (),
        fresh: bool = False,
        zones: Zones | None = None,
        guard: Guard | None = None,
    ) -> Script:
        bound = bound_of(self._connections) if self._features.known.get("count") else 0
        return script.install(
            anew, put_back, stale, fresh=fresh, bound=bound, counters=self._counters, zones=zones, guard=guard
        )

    def remove(self, installed: Iterable[Installed], guard: Guard | None = None) -> Script:
        return script.remove(installed, guard)

    def without_guard(self, transaction: Transaction) -> Script:
        assert isinstance(transaction, Script)
        return Script((*transaction.operations, *guard_removal(bases_of_nobody())))

    def known(self, installed: Installed, attachment: Attachment, guard: Guard | None) -> Installed:
        return known(installed, attachment, guard)

    def tracks(self, installed: Installed) -> bool:
        return bounds.tracks(installed.objects)

    def statements(self, installed: Installed) -> list[str]:
        chains = (each for each in installed.objects if each.kind == "chain")
        return [f"{each.name}: {rule}" for each in chains for rule in each.content]

    def learnable(self, installed: Installed) -> Mapping[int, int]:
        return learned.learnable(installed)

    def check(self, rulesets: Iterable[Ruleset]) -> None:
        self._features.check(needs_of(rulesets))

    def sees_ingress(self) -> bool:
        return self._features.has("ingress")

    def takes_absent_devices(self) -> bool:
        return self._features.find_out("absent")

    def abilities(self) -> Mapping[str, bool]:
        return {feature: self._features.has(feature) for feature in SYMBOLS}

    def needs(self, installed: Installed) -> tuple[str, ...]:
        return needs_of_statements(self.statements(installed))

    def has_zones(self) -> bool:
        return self._features.has("zones")

    def zones(self) -> Mapping[str, int]:
        return {element.text: zone_of(element) for element in read_elements("bridge", MAP)}

    def apply(self, transaction: Transaction) -> int:
        assert isinstance(transaction, Script)
        with prepared(transaction, self._run) as changes:
            changes += self._carry_out(lambda: segments.completed(transaction))
        try:
            return changes + self._carry_out(lambda: segments.following(transaction))
        except NftError as error:
            # what was asked for is in force, but not all is cleaned up
            raise NftError(str(error), unsure=True) from error

    def _carry_out(self, worked_out: Callable[[], Script]) -> int:
        """
        Run what was worked out by what the kernel shows; if it is refused, and that has changed meanwhile, what is
        worked out anew. Returns the number of changes to the kernel.
        """
        first = worked_out()
        if not first.operations:
            return 0
        try:
            return self._run(first)
        except NftError as error:
            again = worked_out()
            if error.unsure or again == first:
                raise
            return self._run(again)

    def _run(self, transaction: Script) -> int:
        ran = self._nft.run(["-f", "-"], transaction.text)
        if ran.status:
            # whatever nft says: what the kernel shows decides whether something is in the way
            from .obstacles import making_room

            roomy = making_room(transaction)
            # of two refusals the first is told: its lines are the transaction's
            if roomy is None or self._nft.run(["-f", "-"], roomy.text).status:
                from .refusals import explain

                raise NftError(explain(transaction, ran.err))
        if any(each.verb == "delete" and each.name in _TRACKING for each in transaction.operations):
            return 1 + self._track_no_longer()
        return 1

    def _track_no_longer(self) -> int:
        """If that was the last tap whose connections are looked at, no other's are tracked any more."""
        try:
            tracking = any(read_rules("bridge", name) for name in (BOUNDS.name, CHAIN))
            if not tracking or any(read_verdicts(name) for name in _LAYER_3):
                return 0
            if not any(map(bounds.is_own, read_verdicts(BOUNDS.map).values())):
                chains = [name for name in read_chains("bridge") if name == CHAIN or bounds.is_filled_to_count(name)]
                flushes = tuple(Operation("flush", "chain", "bridge", name) for name in chains)
                return 0 if self._nft.run(["-f", "-"], Script(flushes).text).status else 1
        except NftError:
            pass  # it costs a little, and the next one to go tries again
        return 0

    def learned_by_others(self, installed: Iterable[Installed]) -> list[tuple[str, str, str]]:
        reserved = (each for one in installed for each in one.objects if each.kind == "reserved")
        return [found for each in reserved for found in segments.taken_from_others(each)]

    def find(self, tap: str) -> Installed | None:
        objects: list[Object] = []
        for table in ("bridge", "netdev"):
            sets = [name for name in read_sets(table) if is_of_tap("set", name, tap)]
            objects += [Object(kind_of(name), table, name) for name in sets]
            chains = sorted(read_chains(table), key=lambda name: (name.count("/"), name))
            objects += [Object("chain", table, name) for name in chains if is_of_tap("chain", name, tap)]
        for base in LOOKUPS:
            verdict = read_verdicts(base.map).get(tap)
            if verdict is not None:
                objects.append(script.element_of(tap, base.map, verdict))
        return Installed(tap, tuple(objects), whole=False) if objects else None

    def with_counts(self, installed: Installed) -> Installed:
        return Installed(installed.tap, tuple(_with_counts(each) for each in installed.objects), installed.whole)

    def look(self, installed: Sequence[Installed]) -> dict[str, Seen]:
        tables = {each.table for one in installed for each in one.objects}
        chains = {table: read_chains(table) for table in tables}
        rules: dict[tuple[str, str], list[KernelRule]] = {}
        for table in tables:
            for rule in read_rules(table):
                rules.setdefault((table, rule.chain), []).append(rule)
        elements = {base.map: read_verdicts(base.map) for base in LOOKUPS} if "bridge" in tables else {}
        over = {element.text for element in read_elements("bridge", bounds.OVER_BOUND)} if elements else set()
        since = functools.lru_cache(None)(learned.since)
        return {one.tap: self._seen(one, chains, rules, elements, over, since) for one in installed}

    def _seen(
        self,
        installed: Installed,
        chains: Mapping[str, Mapping[str, Hook | None]],
        rules: Mapping[tuple[str, str], list[KernelRule]],
        elements: Mapping[str, Mapping[str, str]],
        over: Container[str],
        since: learned.Since,
    ) -> Seen:
        missing = []
        dropped: dict[str, int] = {}
        counts = False
        for each in installed.objects:
            if each.kind == "chain":
                if each.name not in chains[each.table]:
                    missing.append(each.name)
                for rule in rules.get((each.table, each.name), ()):
                    if rule.packets is not None and rule.stops:
                        counts = True
                        dropped[rule.comment] = dropped.get(rule.comment, 0) + rule.packets
            elif each.kind == "element" and elements[each.name].get(installed.tap) != each.content[0]:
                missing.append(each.name)
        own = learned.own_addresses(installed)
        known = learned.learned_addresses(installed, since) + learned.learned_macs(installed, int(time.time()))
        unread = (read_elements(each.table, each.name) for each in learned.unread_sets(installed))
        return Seen(
            tuple(missing),
            tuple(each for each in known if each.address not in own),
            tuple(learned.address_of(element) for elements in unread for element in elements),
            dropped if counts else None,
            (
                *dict.fromkeys(_counting_rule(installed, each.name) for each in _full_sets(installed)),
                *(("connections",) if installed.tap in over else ()),
            ),
        )

    def fingerprints(self, installed: Sequence[Installed]) -> dict[str, str]:
        return fingerprints(installed)

    def compare(self, known: Sequence[tuple[Installed, str]]) -> dict[str, tuple[str, ...]]:
        from .comparison import compare

        return compare(known)

    def taps(self) -> frozenset[str]:
        return frozenset(tap for base in LOOKUPS for tap in read_verdicts(base.map) if tap)

    def generation(self) -> int:
        with SystemErrorAs(NftError, "the kernel's ruleset can't be read"):
            return generation.ask_generation()

    def namespace(self) -> str:
        return generation.namespace()

    def monitor(self) -> Monitor:
        from .events import NftMonitor

        return NftMonitor()

    def trace(self, installed: Installed, sought: Sought) -> Tracer:
        from .trace import NftTracer

        return NftTracer(self._nft, installed, sought)

    def set_learned(self, installed: Installed, versions: Iterable[int], addresses: Iterable[str]) -> None:
        self.apply(learned.set_learned(installed, versions, addresses, int(time.time())))

    # --- the administrator's sets -------------------------------------------------------------------------------------

    def change_set(self, operation: str, elements: Sequence[tuple[NamedSet, str]]) -> None:
        operations = [Operation("add", "table", "bridge")]
        for named, element in elements:
            name = set_name("", named)
            made = declaration(name, named.dimensions)
            operations.append(Operation("add", kind_of(name), "bridge", name, value=made))
            operations.append(Operation(operation, "element", "bridge", name, element))
        self.apply(Script(tuple(operations)))

    def flush_sets(self, named: Iterable[NamedSet]) -> bool:
        found = [name for name in read_sets("bridge") if name in {set_name("", each) for each in named}]
        if found:
            self.apply(Script(tuple(Operation("flush", "set", "bridge", name) for name in found)))
        return bool(found)

    def list_sets(self, named: Iterable[NamedSet]) -> list[str] | None:
        wanted = {set_name("", each) for each in named}
        found = [name for name in read_sets("bridge") if name in wanted]
        return [element for name in found for element in self._list_set(name)] if found else None

    def _list_set(self, name: str) -> list[str]:
        """Intervals are many elements in the kernel; nft knows how they belong together."""
        ran = self._nft.run(["-j", "list", "set", "bridge", TABLE, name])
        try:
            items = json.loads(ran.out)["nftables"]
            (found,) = (item["set"] for item in items if "set" in item)
            return [spelled(element) for element in found.get("elem", ())]
        except (ValueError, KeyError, TypeError) as error:
            raise NftError(f"nft list set {name}: unreadable answer: {ran.err.strip() or error}") from error


def _with_counts(each: Object) -> Object:
    """A chain's rules, with what the same ones in the kernel, told by their comments, have counted."""
    if each.kind != "chain" or not any(with_counts(rule, 0, 0) != rule for rule in each.content):
        return each
    counted = read_rules(each.table, each.name)
    if len(counted) != len(each.content):
        return each
    content = tuple(
        with_counts(rule, known.packets, known.octets)
        if known.packets and rule.endswith(f'"{known.comment}"') and known.octets is not None
        else rule
        for rule, known in zip(each.content, counted)
    )
    return Object(each.kind, each.table, each.name, each.definition, content)


def _full_sets(installed: Installed) -> Iterable[Object]:
    """The sets that count connections and have no room for a further source."""
    for each in installed.objects:
        counts = each.kind == "set" and counts_connections(each.name)
        if counts and len(read_elements(each.table, each.name)) >= MAX_SOURCES:
            yield each


def _counting_rule(installed: Installed, name: str) -> str:
    """The comment of the rule that counts in this set."""
    rules = (rule for each in installed.objects if each.kind == "chain" for rule in each.content)
    counting = next((rule for rule in rules if f" add @{name} " in rule), name)
    return counting.rpartition(' comment "')[2].rstrip('"')


_LAYER_3 = ("from-guest-l3", "to-guest-l3")
_TRACKING = (*_LAYER_3, BOUNDS.map)
"""The maps of taps whose connections are looked at, or may be."""
