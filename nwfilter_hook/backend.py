"""
What every back end can do: the only door from operations and commands to the kernel.

In:  `Ruleset`s, and what records hold of taps that are filtered already.
Out: transactions, which the kernel takes whole or not at all, and what is in the kernel now.

`host.py` chooses one. Making a transaction is pure; what asks or changes the kernel says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .base.dataclass import dataclass
from .base.errors import Source
from .commits import Monitor
from .guards import Guard, GuardBackend
from .ruleset.model import Attachment, NamedSet, Ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .ruleset.judged import Sought, Tracer


@dataclass(frozen=True)
class Object:
    """
    One thing in the kernel that is a tap's, by exact name.

    Attributes:
        kind: "chain", "set", "map", "element" (of a map that all taps share), "shared" (a set that is nobody's, made if
            it isn't there) or "reserved" (addresses that no other tap learns).
        table: the back end's word for where it is: "bridge", "netdev".
        name: of an element, the map's name.
        definition: what it is made with beside its name; of an element its key; tap and addresses of what is reserved.
        content: a chain's rules in their order; what is in a set from the beginning; what an element maps to.
    """

    kind: str
    table: str
    name: str
    definition: str = ""
    content: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes it this one thing, whatever is in it."""
        return self.kind, self.table, self.name, self.definition if self.kind in ("element", "reserved") else ""

    def belongs_to(self, tap: str) -> bool:
        """
        Whether it can be the tap's: what a back end makes for a tap is named PREFIX/TAP or PREFIX/TAP/MORE, and a tap's
        name holds no "/"; an element has the tap for its key.
        """
        if self.kind == "element":
            return self.definition == f'"{tap}"'
        if self.kind == "reserved":
            return self.definition.split(" ")[0] == tap
        return self.kind == "shared" or (self.kind in ("chain", "set", "map") and self.name.split("/")[1:2] == [tap])


@dataclass(frozen=True)
class Installed:
    """
    What one tap has in the kernel, in an order in which it can be made.

    Attributes:
        whole: True if definitions and contents are known, so that it can be put back; else names are all there is.
    """

    tap: str
    objects: tuple[Object, ...]
    whole: bool = True

    def names(self, *kinds: str) -> tuple[str, ...]:
        """The names of its objects of these kinds."""
        return tuple(each.name for each in self.objects if each.kind in kinds)

    @property
    def rules(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """What is in each of its chains."""
        return {each.key: each.content for each in self.objects if each.kind == "chain"}


@dataclass(frozen=True)
class Rendered:
    """
    What a ruleset is in the kernel.

    Attributes:
        origins: by (table, chain), the filter and place that each of the chain's rules comes from.
    """

    installed: Installed
    origins: Mapping[tuple[str, str], Sequence[tuple[str, Source]]]


def subtract(known: Iterable[Installed], kept: Iterable[Installed]) -> tuple[Installed, ...]:
    """What of `known` is not in `kept`, each thing once and by name only."""
    seen = {each.key for installed in kept for each in installed.objects}
    rest = []
    for installed in known:
        objects = tuple(each for each in installed.objects if each.key not in seen)
        seen.update(each.key for each in objects)
        if objects:
            rest.append(Installed(installed.tap, objects, installed.whole))
    return tuple(rest)


@dataclass(frozen=True)
class Zones:
    """
    Zones of connection tracking, as pairs of a bridge and a number.

    Attributes:
        apart: bridges whose connections are unknown elsewhere, those that have their zone already, too.
        gone: zones that bridges had and don't have any more.
    """

    apart: tuple[tuple[str, int], ...] = ()
    gone: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class LearnedAddress:
    """
    An address that the kernel has learned, or was given by hand.

    Attributes:
        since_s: seconds since the epoch; None if the kernel doesn't tell.
    """

    address: str
    since_s: int | None


@dataclass(frozen=True)
class Seen:
    """
    What the kernel shows of one tap.

    Attributes:
        missing: names of its chains and map elements that are not there.
        unread: addresses in DHCP answers to the guest that taught nothing, since their type could not be read.
        dropped: packets that drop and reject rules counted, by the rule's comment; None without counters.
        full: comments of rules that count connections and have no room for a further source.
    """

    missing: tuple[str, ...]
    learned: tuple[LearnedAddress, ...]
    unread: tuple[str, ...]
    dropped: Mapping[str, int] | None
    full: tuple[str, ...] = ()


class Transaction:
    """What the kernel takes whole or not at all."""

    @property
    def text(self) -> str:
        """As the back end's program reads it; "" if there is nothing to do."""
        raise NotImplementedError


class Backend:
    """A way to filter taps. Every method that asks or changes the kernel may raise NftError."""

    @property
    def guard(self) -> GuardBackend:
        """What it can do about the guard alone."""
        raise NotImplementedError

    # --- pure ---------------------------------------------------------------------------------------------------------

    def render(self, ruleset: Ruleset) -> Rendered:
        """What `ruleset` is in the kernel."""
        raise NotImplementedError

    def install(
        self,
        anew: Sequence[Rendered] = (),
        *,
        put_back: Iterable[Installed] = (),
        stale: Iterable[Installed] = (),
        fresh: bool = False,
        zones: Zones | None = None,
        guard: Guard | None = None,
    ) -> Transaction:
        """
        The transaction after which `anew`, and what is recorded as `put_back`, filter their taps, and the guard is on.

        Args:
            stale: what may be in the kernel for these or other taps, and goes unless it is made anew.
            fresh: forget what was learned by the taps of `anew`.
            zones: None if this kernel has none.
            guard: None, or one that isn't carried, leaves what the kernel has of it alone.
        """
        raise NotImplementedError

    def without_guard(self, transaction: Transaction) -> Transaction:
        """
        `transaction`, after which the guard is not in the kernel, whether it was or not, nor what only it had need of;
        for that the kernel is asked.
        """
        raise NotImplementedError

    def remove(self, installed: Iterable[Installed], guard: Guard | None = None) -> Transaction:
        """The transaction after which none of `installed` is in the kernel, whether it was or not; see `install`."""
        raise NotImplementedError

    def known(self, installed: Installed, attachment: Attachment, guard: Guard | None) -> Installed:
        """
        `installed` as it is to be under this guard, or without one: that its tap has been decided about is then told
        where it has no rules, too.
        """
        raise NotImplementedError

    def tracks(self, installed: Installed) -> bool:
        """Whether its rules look at connections."""
        raise NotImplementedError

    def statements(self, installed: Installed) -> list[str]:
        """Every rule as "CHAIN: RULE", for comparing and reading."""
        raise NotImplementedError

    def learnable(self, installed: Installed) -> Mapping[int, int]:
        """How many addresses the tap may learn, by IP version; MACs by 0; {} if it learns none."""
        raise NotImplementedError

    # --- the kernel ---------------------------------------------------------------------------------------------------

    def check(self, rulesets: Iterable[Ruleset]) -> None:
        """Raises MissingFeature, with the rule and the config symbol, if this kernel lacks what one of them needs."""
        raise NotImplementedError

    def sees_ingress(self) -> bool:
        """Whether rules can stand at the ingress of a bridge port's device, before the bridge."""
        raise NotImplementedError

    def takes_absent_devices(self) -> bool:
        """Whether rules can stand for a device that isn't there yet."""
        raise NotImplementedError

    def abilities(self) -> Mapping[str, bool]:
        """All that this kernel can or can't do, by name."""
        raise NotImplementedError

    def needs(self, installed: Installed) -> tuple[str, ...]:
        """The abilities without which its rules could not be."""
        raise NotImplementedError

    def has_zones(self) -> bool:
        """Whether this kernel can keep connections of bridges apart."""
        raise NotImplementedError

    def zones(self) -> Mapping[str, int]:
        """By bridge, the zone that its connections are in."""
        raise NotImplementedError

    def learned_by_others(self, installed: Iterable[Installed]) -> list[tuple[str, str, str]]:
        """
        What other taps have learned of what was given to these, and lose as soon as these are in force: the address,
        the tap that it is given to, and the tap that has learned it.
        """
        raise NotImplementedError

    def apply(self, transaction: Transaction) -> int:
        """
        Hand it to the kernel. Returns by how much that raised `generation`: more than one, if there was something to
        tidy up afterwards.

        Raises:
            NftError: it was refused, and nothing has changed; or (`.unsure`) there was no answer in time.
        """
        raise NotImplementedError

    def find(self, tap: str) -> Installed | None:
        """What our tables hold now under the exact name of `tap`, by name only; None if nothing."""
        raise NotImplementedError

    def with_counts(self, installed: Installed) -> Installed:
        """`installed`, its rules' counters as they stand now, so that putting it back loses no count."""
        raise NotImplementedError

    def look(self, installed: Sequence[Installed]) -> dict[str, Seen]:
        """By tap, what the kernel shows of each."""
        raise NotImplementedError

    def fingerprints(self, installed: Sequence[Installed]) -> dict[str, str]:
        """
        By tap, a digest of what the kernel has of each: chains, rules as the kernel runs them, and what leads there. It
        is another as soon as anybody has changed something; what is counted or learned isn't in it.
        """
        raise NotImplementedError

    def compare(self, known: Sequence[tuple[Installed, str]]) -> dict[str, tuple[str, ...]]:
        """
        By tap that has something else than what is known, with its digest, a sentence for each thing; () where only the
        kernel's own form of a rule differs.
        """
        raise NotImplementedError

    def taps(self) -> frozenset[str]:
        """Every tap that our tables lead anywhere."""
        raise NotImplementedError

    def generation(self) -> int:
        """The number of the last change that anybody made to the kernel's rules."""
        raise NotImplementedError

    def namespace(self) -> str:
        """Which ruleset that is: the same in no other boot or network namespace; "" if that can't be told."""
        raise NotImplementedError

    def monitor(self) -> Monitor:
        """What tells of changes from now on."""
        raise NotImplementedError

    def trace(self, installed: Installed, sought: Sought) -> Tracer:
        """What tells of the frames of a tap from now on, and changes nothing about them."""
        raise NotImplementedError

    def set_learned(self, installed: Installed, versions: Iterable[int], addresses: Iterable[str]) -> None:
        """Forget what it has learned of these IP versions (0 is MAC); then make `addresses` what it has learned."""
        raise NotImplementedError

    def change_set(self, operation: str, elements: Sequence[tuple[NamedSet, str]]) -> None:
        """`operation` ("add", "delete") elements of the administrator's sets, all or none."""
        raise NotImplementedError

    def flush_sets(self, named: Iterable[NamedSet]) -> bool:
        """Empty those of the administrator's sets that are there; False if none is."""
        raise NotImplementedError

    def list_sets(self, named: Iterable[NamedSet]) -> list[str] | None:
        """The elements of those of the administrator's sets that are there; None if none is."""
        raise NotImplementedError
