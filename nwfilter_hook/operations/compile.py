"""
A tap's filter to its rules on this host.

In:  an interface of a guest, or what a record says of one; a `Host`.
Out: a `CompiledTap`, which a transaction puts into force; or an error that names filter and line.
"""

from __future__ import annotations

from ..backend import Installed, Rendered
from ..base.addresses import parse_mac
from ..base.dataclass import dataclass, replace
from ..base.errors import NOWHERE, BadValue, DomainError, InputError, MissingFeature, NwfilterHookError, Source
from ..base.said import BYPASSED, WARNING, Said
from ..compiler.compile import compile_tap
from ..compiler.optimise import optimised
from ..domain.model import Carrier, Domain, Interface, check_tap
from ..filters.bound import BoundRule
from ..filters.connections import CONNECTIONS, read_connections, under_floor
from ..filters.learning import Learning, read_learning
from ..filters.model import FilterRef
from ..filters.resolve import resolve, uses_learned
from ..guards import Guard
from ..host import Host
from ..ruleset.model import Attachment, Chain, Rule, Ruleset, Segment, Stage, Verdict
from ..storage.library import Library
from ..storage.records import Binding
from .bounds import Bound, count_rules
from .devices import attachment_of, bridge_of, can_be_closed, read_device, refuse_userspace_datapath, without_ingress
from .floors import describe, floor_below
from .segments import segment_of, with_hosts_own


@dataclass(frozen=True)
class CompiledTap:
    """
    What a record will say of a tap once its rules are in the kernel, and the rules.

    Attributes:
        rules: their number, before they are rendered.
    """

    binding: Binding
    rendered: Rendered
    rules: int


@dataclass(frozen=True)
class CompiledGuest:
    """
    A guest's taps.

    Attributes:
        failed: taps whose rules can't be made, with the reason; there is a quarantine for them among `taps` if they can
            have one.
        guard: with which it was compiled: under another one, other taps of it may be known.
    """

    taps: tuple[CompiledTap, ...]
    failed: tuple[tuple[str, NwfilterHookError], ...] = ()
    guard: Guard | None = None


def compile_reference(
    reference: FilterRef,
    tap: str,
    attachment: Attachment,
    mac: str,
    library: Library,
    *,
    end_of_chain: str = "return",
    floor: FilterRef | None = None,
    ingress: bool = True,
    segment: Segment | None = None,
    inline: bool = True,
) -> Ruleset:
    """
    The rules that `reference` makes for `tap`. Pure but for reading the library's files.

    Args:
        end_of_chain, ingress, segment, inline: see compiler.compile_tap.
        floor: a reference whose filter counts too, first; parameters of the one mean nothing to the other.

    Raises:
        InputError: see resolve.resolve and compiler.compile_tap.
    """
    rules, learning = _resolved(reference, mac, library)
    below, floor_learning = _resolved(floor, mac, library) if floor else ((), None)
    connections = read_connections(reference)
    if floor is not None:
        connections = under_floor(connections, read_connections(floor))
    if connections and attachment is not Attachment.BRIDGE_PORT:
        message = f"parameter {CONNECTIONS}: connections are counted of bridge ports only, and {tap} is none"
        raise BadValue(message, reference.source)
    compiled = compile_tap(
        tap,
        attachment,
        parse_mac(mac),
        rules,
        learning,
        end_of_chain=end_of_chain,
        floor=below,
        floor_learning=floor_learning,
        ingress=ingress,
        segment=segment,
        inline=inline,
    )
    return replace(compiled, connections=connections)


def _resolved(reference: FilterRef, mac: str, library: Library) -> tuple[tuple[BoundRule, ...], Learning | None]:
    rules = resolve(reference, mac, library.read)
    return rules, read_learning(reference) if uses_learned(rules) else None


def compile_interface(host: Host, interface: Interface, uuid: str) -> CompiledTap:
    """
    The rules that the interface wants; `uuid` is its guest's.

    Raises:
        InputError, MissingFeature: they can't be made, or not on this kernel.
    """
    if interface.problem:
        raise interface.problem
    if not interface.tap:
        raise DomainError("the interface has a filter, but the XML names no tap (<target dev='…'/>)", interface.source)
    tap = check_tap(interface.tap, interface.source)
    refuse_userspace_datapath(interface, tap)
    assert interface.reference
    return _compile(host, _wanted(interface, tap), interface.reference, uuid)


def recompile(host: Host, binding: Binding, uuid: str) -> CompiledTap:
    """
    The rules that the filter of a recorded tap makes now; `uuid` is its guest's.

    Raises:
        InputError, MissingFeature: they can't be made, or not on this kernel.
    """
    if binding.unfiltered:
        return compile_unfiltered(host, binding, host.guard)
    return _compile(host, replace(binding, quarantined=False), binding.reference, uuid)


def unfiltered(interface: Interface, guard: Guard | None) -> Binding | None:
    """
    What the record will say of an interface that names no filter, but for what it has in the kernel; None without a
    guard, or without a place for rules.
    """
    if guard is None or interface.reference or interface.problem or not _has_usable_tap(interface):
        return None
    return replace(_wanted(interface, interface.tap or ""), carrier="", quarantined=guard.unfiltered == "drop")


def compile_unfiltered(host: Host, wanted: Binding, guard: Guard | None) -> CompiledTap:
    """Of a tap that names no filter: no rules, or where the guard has it so, rules that let nothing through."""
    if wanted.held or (guard and guard.unfiltered == "drop"):
        return compile_quarantine(host, wanted, NOWHERE)
    return _rendered(host, replace(wanted, quarantined=False), Ruleset(wanted.tap, wanted.attachment, (), ()), 0)


def recorded_ruleset(host: Host, binding: Binding, uuid: str) -> tuple[Ruleset, bool]:
    """
    The ruleset of a recorded tap, compiled anew, and whether that is what its record says; `uuid` is its guest's.

    Raises:
        InputError: its filter can't be compiled any more.
    """
    ingress = binding.attachment is Attachment.BRIDGE_PORT and host.backend.sees_ingress()
    if binding.quarantined:
        return quarantine(binding.tap, binding.attachment, NOWHERE, ingress=ingress), True
    ruleset = _ruleset(host, binding, binding.reference, uuid, ingress=ingress)
    # what was made before the configuration said otherwise is no other filter
    either = (host.backend.render(each).installed for each in (in_force(host, ruleset), ruleset, optimised(ruleset)))
    return ruleset, binding.installed in either


def in_force(host: Host, ruleset: Ruleset) -> Ruleset:
    """
    What is put into the kernel for `ruleset`. Where every rule counts, each stays by itself.
    """
    asked = host.config.optimise == "yes" and host.config.counters != "all"
    return optimised(ruleset) if asked else ruleset


def check_domain(host: Host, domain: Domain) -> None:
    """
    See that every filtered interface's rules can be made, whether it has a tap yet or not.

    Raises:
        InputError, MissingFeature: they can't, or not on this kernel, or there are more than a guest may have.
    """
    bound = Bound(domain)
    for interface in domain.interfaces:
        if interface.reference:
            ruleset = _ruleset(host, _wanted(interface, interface.tap or "tap"), interface.reference, domain.uuid)
            bound.add(interface, count_rules(ruleset, interface.reference))
            host.backend.check([ruleset])


def _ruleset(host: Host, wanted: Binding, reference: FilterRef, uuid: str, *, ingress: bool = True) -> Ruleset:
    ruleset = compile_reference(
        reference,
        wanted.tap,
        wanted.attachment,
        wanted.mac,
        host.library,
        end_of_chain=host.config.end_of_chain,
        floor=floor_below(host, wanted.bridge, reference),
        ingress=ingress,
        segment=segment_of(wanted, uuid),
    )
    return with_hosts_own(ruleset, wanted, host.config)


def _sees_ingress(host: Host, wanted: Binding) -> bool:
    if wanted.attachment is not Attachment.BRIDGE_PORT:
        return False
    sees = host.backend.sees_ingress()
    if not sees:
        host.report(Said(f"{wanted.tap}: warning: {without_ingress(wanted.bridge)}", BYPASSED, tap=wanted.tap))
    return sees


def _compile(host: Host, wanted: Binding, reference: FilterRef, uuid: str) -> CompiledTap:
    wanted = replace(wanted, floor=describe(floor_below(host, wanted.bridge, reference)))
    ruleset = _ruleset(host, wanted, reference, uuid, ingress=_sees_ingress(host, wanted))
    for note in ruleset.notes:
        host.report(Said(f"{wanted.tap}: warning: {note}", WARNING, tap=wanted.tap))
    host.backend.check([ruleset])
    return _rendered(host, wanted, ruleset, count_rules(ruleset, reference))


def _rendered(host: Host, wanted: Binding, ruleset: Ruleset, rules: int) -> CompiledTap:
    rendered = host.backend.render(in_force(host, ruleset))
    return CompiledTap(replace(wanted, installed=rendered.installed), rendered, rules)


def _wanted(interface: Interface, tap: str) -> Binding:
    """What the record will say of the interface, but for what it has in the kernel."""
    device = read_device(tap)
    return Binding(
        tap=tap,
        called=interface.called or tap,
        mac=interface.mac,
        type=interface.type,
        attachment=attachment_of(interface, device),
        bridge=bridge_of(interface, device),
        index=device.index if device else None,
        carrier=(interface.carrier or Carrier.FILTERREF).value,
        filter=interface.reference.filter if interface.reference else "",
        parameters=dict(interface.reference.parameters) if interface.reference else {},
        installed=Installed(tap, ()),
        fingerprint="",
        quarantined=False,
    )


def compile_quarantine(host: Host, binding: Binding, source: Source) -> CompiledTap:
    """Rules that let nothing through, neither way, in place of those of `binding`."""
    closed = quarantine(binding.tap, binding.attachment, source, ingress=_sees_ingress(host, binding))
    ruleset = replace(closed, segment=segment_of(binding))  # its addresses stay its own
    return _rendered(host, replace(binding, quarantined=True), ruleset, 0)


def quarantine(tap: str, attachment: Attachment, source: Source, *, ingress: bool = True) -> Ruleset:
    """The ruleset that lets nothing through, neither way."""
    drop = Rule((), Verdict.DROP, "quarantine", source)
    trees = [Stage.FROM_L2, Stage.TO_L2]
    if ingress and attachment is Attachment.BRIDGE_PORT:
        trees.insert(0, Stage.INGRESS)
    return Ruleset(tap, attachment, tuple(Chain(tree, None, (drop,)) for tree in trees), (), connections=0)


def compile_domain(host: Host, domain: Domain, *, tolerant: bool) -> CompiledGuest:
    """
    Every filtered interface's rules; with the guard on, of the others that they are known.

    Args:
        tolerant: True for a quarantine in place of what fails.

    Raises:
        InputError, MissingFeature: rules can't be made, unless tolerant; two interfaces have one tap, or there are more
            rules than a guest may have.
    """
    failed: list[tuple[str, NwfilterHookError]] = []
    compiled: list[CompiledTap] = []
    sources: dict[str, Source] = {}
    bound = Bound(domain)
    guard = host.guard
    for interface in domain.interfaces:
        if not interface.reference and not interface.problem:
            compiled += _unfiltered(host, interface, guard)
            continue
        try:
            made = compile_interface(host, interface, domain.uuid)
            bound.add(interface, made.rules)
        except (InputError, MissingFeature) as error:
            if not tolerant:
                raise
            failed.append((interface.tap or "(no tap)", error))
            if not _has_usable_tap(interface):
                continue
            made = compile_quarantine(host, _wanted(interface, interface.tap or ""), interface.source)
        if made.binding.tap in sources:
            raise DomainError(f"two interfaces have the tap {made.binding.tap}", interface.source)
        sources[made.binding.tap] = interface.source
        compiled.append(made)
    return CompiledGuest(tuple(compiled), tuple(failed), guard)


def _has_usable_tap(interface: Interface) -> bool:
    try:
        return bool(interface.tap and check_tap(interface.tap, interface.source) and can_be_closed(interface))
    except DomainError:
        return False


def _unfiltered(host: Host, interface: Interface, guard: Guard | None) -> list[CompiledTap]:
    bare = unfiltered(interface, guard)
    if bare is None and guard and guard.unfiltered == "drop":
        host.report(f"{interface.tap or interface.mac}: it names no filter, and there is no place to cut it off")
    return [compile_unfiltered(host, bare, guard)] if bare else []
