"""
A tap's filter to its rules on this host.
"""

from __future__ import annotations

from collections.abc import Container

from ..base.addresses import parse_mac
from ..base.dataclass import dataclass
from ..base.errors import DomainError, InputError, MissingFeature, NwfilterHookError
from ..compiler.compile import compile_tap
from ..domain.model import Domain, Interface, check_tap
from ..filters.learning import read_learning
from ..filters.model import FilterRef
from ..filters.resolve import resolve, uses_learned
from ..host import Host
from ..nftables.features import check_features
from ..nftables.script import quarantine
from ..ruleset.model import Attachment, Ruleset
from ..storage.library import Library
from .devices import attachment_of, can_be_closed, refuse_userspace_datapath


@dataclass(frozen=True)
class Compiled:
    """One interface with its rules; `quarantined` if they are not the ones it wants."""

    interface: Interface
    ruleset: Ruleset
    quarantined: bool


def compile_reference(
    reference: FilterRef, tap: str, attachment: Attachment, mac: str, library: Library, *, end_of_chain: str = "return"
) -> Ruleset:
    """
    The rules that `reference` makes for `tap`. Pure but for reading the library's files.

    Args:
        end_of_chain: see compiler.compile_tap.

    Raises:
        InputError: see resolve.resolve and compiler.compile_tap.
    """
    rules = resolve(reference, mac, library.read)
    learning = read_learning(reference) if uses_learned(rules) else None
    return compile_tap(tap, attachment, parse_mac(mac), rules, learning, end_of_chain=end_of_chain)


def compile_on(host: Host, interface: Interface, tap: str) -> Ruleset:
    """The rules that the interface's reference makes for `tap` on this host. Raises InputError."""
    assert interface.reference
    attachment = attachment_of(interface)
    end = host.config.end_of_chain
    return compile_reference(interface.reference, tap, attachment, interface.mac, host.library, end_of_chain=end)


def compile_interface(host: Host, interface: Interface) -> Compiled:
    """
    The rules that the interface wants.

    Raises:
        InputError, MissingFeature: they can't be made, or not on this kernel.
    """
    if interface.problem:
        raise interface.problem
    assert interface.reference
    if not interface.tap:
        raise DomainError("the interface has a filter, but the XML names no tap (<target dev='…'/>)", interface.source)
    tap = check_tap(interface.tap, interface.source)
    refuse_userspace_datapath(interface, tap)
    ruleset = compile_on(host, interface, tap)
    for note in ruleset.notes:
        host.report(f"{tap}: warning: {note}")
    check_features(host, [ruleset])
    return Compiled(interface, ruleset, False)


def compile_domain(
    host: Host, domain: Domain, *, tolerant: bool, kept: Container[str] = ()
) -> tuple[list[Compiled], list[tuple[str, NwfilterHookError]]]:
    """Every filtered interface's rules; with `tolerant` a quarantine, or nothing if it is `kept`, for what fails."""
    failed: list[tuple[str, NwfilterHookError]] = []
    compiled: list[Compiled] = []
    for interface in domain.interfaces:
        if not interface.reference and not interface.problem:
            continue
        try:
            compiled.append(compile_interface(host, interface))
        except (InputError, MissingFeature) as error:
            if not tolerant:
                raise
            failed.append((interface.tap or "(no tap)", error))
            if interface.tap in kept:
                continue
            if _has_usable_tap(interface):
                rules = quarantine(interface.tap or "", attachment_of(interface), interface.source)
                compiled.append(Compiled(interface, rules, True))
    taps = [each.ruleset.tap for each in compiled]
    for each in compiled:
        if taps.count(each.ruleset.tap) > 1:
            raise DomainError(f"two interfaces have the tap {each.ruleset.tap}", each.interface.source)
    return compiled, failed


def _has_usable_tap(interface: Interface) -> bool:
    try:
        return bool(interface.tap and check_tap(interface.tap, interface.source) and can_be_closed(interface))
    except DomainError:
        return False
