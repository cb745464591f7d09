"""
A back end without a kernel: it carries out transactions on a dictionary, whole or not at all, and can be told to fail.

It is as strict as the kernel: what is deleted must be there, a chain that something jumps to can't be deleted, a jump
needs its chain, and an element never changes its verdict.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence

from nwfilter_hook.backend import Installed, Object, Seen, Transaction
from nwfilter_hook.base.errors import NftError
from nwfilter_hook.guards import Guard, GuardBackend, Refused
from nwfilter_hook.nftables.backend import NftBackend
from nwfilter_hook.nftables.commands import Operation, Script
from nwfilter_hook.nftables.guard import CATCH_ALL, guard_removal
from nwfilter_hook.nftables.names import BASE_CHAINS, MAPS, is_of_tap
from nwfilter_hook.nftables.process import Nft
from nwfilter_hook.nftables.zones import MAP
from nwfilter_hook.ruleset.model import Ruleset


class Kernel:
    """
    What the tables hold.

    Attributes:
        chains: (table, name) to the chain's rules.
        elements: (map or set, key) to what it maps to.
        sets: (table, name).
    """

    def __init__(self) -> None:
        self.chains: dict[tuple[str, str], list[str]] = {}
        self.elements: dict[tuple[str, str], str] = {}
        self.sets: set[tuple[str, str]] = set()

    def run(self, operations: Iterable[Operation]) -> None:
        """Carry out a transaction; ValueError, with nothing settled, at what the kernel would refuse."""
        for operation in operations:
            self._run(operation)
        missing = set(self._jumps()) - {name for _, name in self.chains}
        if missing:
            raise ValueError(f"jump to what isn't there: {missing}")

    def _run(self, each: Operation) -> None:
        place = each.table, each.name
        if each.kind == "chain" and each.verb == "add":
            self.chains.setdefault(place, [])
        elif each.kind == "chain" and each.verb == "flush":
            self.chains[place] = []
        elif each.kind == "chain":
            if each.name in self._jumps(but=each.name):
                raise ValueError(f"busy: {each.text}")
            del self.chains[place]
        elif each.kind == "rule":
            self.chains[place].append(each.value)
        elif each.kind == "element" and each.verb == "delete":
            del self.elements[each.name, each.key]
        elif each.kind == "element":
            if self.elements.setdefault((each.name, each.key), each.value) != each.value:
                raise ValueError(f"an element never changes its verdict: {each.text}")
        elif each.kind == "table" and each.verb == "delete":
            self.chains = {place: rules for place, rules in self.chains.items() if place[0] != each.table}
        elif each.kind in ("set", "map") and "verdict" not in each.value:
            if each.verb == "flush":
                self.elements = {key: value for key, value in self.elements.items() if key[0] != each.name}
            else:
                (self.sets.add if each.verb == "add" else self.sets.remove)(place)

    def _jumps(self, but: str = "") -> Iterator[str]:
        """The chains that a rule or an element leads to, leaving out the rules of one chain."""
        rules = (rule for (_, user), rules in self.chains.items() if user != but for rule in rules)
        for text in (*self.elements.values(), *rules):
            words = text.split()
            yield from (words[index + 1] for index, word in enumerate(words) if word in ("jump", "goto"))

    def taps(self) -> set[str]:
        """Every tap that anything in the tables is about."""
        names = {name.split("/")[1] for _, name in (*self.chains, *self.sets) if "/" in name}
        return names | {key.strip('"') for name, key in self.elements if name.endswith(("-l2", "-l3"))}


class FakeGuard(GuardBackend):
    """Of a kernel that can do everything and drops nothing."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend

    def check(self, guard: Guard) -> None:
        pass

    def fingerprint(self) -> str:
        kernel = self._backend.kernel
        found = [verdict for (_, key), verdict in sorted(kernel.elements.items()) if key == CATCH_ALL]
        return repr((found, [kernel.chains.get(("bridge", verdict.split()[1])) for verdict in found])) if found else ""

    def faults(self, guard: Guard) -> tuple[str, ...]:
        return () if self.fingerprint() == guard.fingerprint else ("it is another",)

    def refused(self) -> dict[str, Refused]:
        return {}


class FakeBackend(NftBackend):
    """
    Attributes:
        scripts: what was carried out.
        fails: raised instead of carrying anything out, if set.
        takes_it_first: carry it out, then raise: as an nft that is given up may have done.
        kernel_has_zones, kernel_has_ingress: what `has_zones` and `sees_ingress` say.
    """

    def __init__(self) -> None:
        super().__init__(Nft("/nonexistent/nft", 1.0), "drops", dict, lambda found: None)
        self.kernel = Kernel()
        self._number, self._numbered = 0, copy.deepcopy(self.kernel.__dict__)
        self.scripts: list[str] = []
        self.fails: NftError | None = None
        self.takes_it_first = False
        self.kernel_has_zones = True
        self.kernel_has_ingress = True

    @property
    def guard(self) -> GuardBackend:
        return FakeGuard(self)

    def without_guard(self, transaction: Transaction) -> Script:
        assert isinstance(transaction, Script)
        return Script((*transaction.operations, *guard_removal(())))

    def check(self, rulesets: Iterable[Ruleset]) -> None:
        for _ in rulesets:
            pass

    def sees_ingress(self) -> bool:
        return self.kernel_has_ingress

    def has_zones(self) -> bool:
        return self.kernel_has_zones

    def zones(self) -> dict[str, int]:
        elements = self.kernel.elements.items()
        return {key.strip('"'): int(value) for (name, key), value in elements if name == MAP}

    def learned_by_others(self, installed: Iterable[Installed]) -> list[tuple[str, str, str]]:
        return []

    def apply(self, transaction: Transaction) -> int:
        assert isinstance(transaction, Script)
        if self.fails and not self.takes_it_first:
            raise self.fails
        after = copy.deepcopy(self.kernel)
        after.run(transaction.operations)
        self._number = self._counted() + 1
        self.kernel = after
        self._numbered = copy.deepcopy(after.__dict__)
        self.scripts.append(transaction.text)
        if self.fails:
            raise self.fails
        return 1

    def find(self, tap: str) -> Installed | None:
        chains = [Object("chain", *place) for place in self.kernel.chains if is_of_tap("chain", place[1], tap)]
        sets = [Object("set", *place) for place in self.kernel.sets if is_of_tap("set", place[1], tap)]
        return Installed(tap, (*chains, *sets), whole=False) if chains or sets else None

    def with_counts(self, installed: Installed) -> Installed:
        return installed

    def generation(self) -> int:
        return self._counted()

    def _counted(self) -> int:
        if self.kernel.__dict__ != self._numbered:  # somebody else was there
            self._number += 1
            self._numbered = copy.deepcopy(self.kernel.__dict__)
        return self._number

    def namespace(self) -> str:
        return "fake/1"

    def fingerprints(self, installed: Sequence[Installed]) -> dict[str, str]:
        return {one.tap: repr([self._found(each) for each in one.objects]) for one in installed}

    def compare(self, known: Sequence[tuple[Installed, str]]) -> dict[str, tuple[str, ...]]:
        installed = [one for one, _ in known]
        seen, digests = self.look(installed), self.fingerprints(installed)
        altered = [one.tap for one, digest in known if digests[one.tap] != digest]
        return {tap: tuple(f"{name} is missing" for name in seen[tap].missing) for tap in altered}

    def taps(self) -> frozenset[str]:
        taps = (key.strip('"') for name, key in self.kernel.elements if name in MAPS)
        return frozenset(tap for tap in taps if tap != CATCH_ALL)

    def _found(self, each: Object) -> object:
        """What the kernel has of a chain or an element, and of the base chain that looks it up."""
        if each.kind == "element":
            base = next(base for base in BASE_CHAINS if base.map == each.name)
            return self.kernel.elements.get((each.name, each.definition)), self.kernel.chains.get(("bridge", base.name))
        return self.kernel.chains.get((each.table, each.name)) if each.kind == "chain" else None

    def look(self, installed: Sequence[Installed]) -> dict[str, Seen]:
        return {
            one.tap: Seen(
                tuple(
                    each.name
                    for each in one.objects
                    if (each.kind == "chain" and (each.table, each.name) not in self.kernel.chains)
                    or (each.kind == "element" and (each.name, each.definition) not in self.kernel.elements)
                ),
                (),
                (),
                None,
            )
            for one in installed
        }
