"""
The only module that asks libvirt. Never on the hook's path: a hook that calls libvirt blocks it.

In:  a connection's URI, guests by name or UUID.
Out: which guests run, and their XML.

https://libvirt.org/html/libvirt-libvirt-domain.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from .base.dataclass import dataclass
from .base.errors import LibvirtError, NwfilterHookError

URI = "qemu:///system"


def load_libvirt(hint: str) -> Any:
    """The module. Raises NwfilterHookError, with what to do instead, if it isn't installed."""
    try:
        import libvirt
    except ImportError:
        raise NwfilterHookError(f"libvirt has to be asked, but libvirt-python isn't there; {hint}") from None
    libvirt.registerErrorHandler(lambda *_: None, None)  # else every error is printed, too
    return libvirt


class Libvirt:
    """
    A connection that only reads. Threads may share it.

    Args:
        connection: a virConnect.
    """

    def __init__(self, module: Any, connection: Any) -> None:
        self._module = module
        self.connection = connection

    def running(self) -> list[tuple[str, str]]:
        """UUID and name of every guest that runs, or is paused. Raises LibvirtError."""
        try:
            found = self.connection.listAllDomains(self._module.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            return [(domain.UUIDString(), domain.name()) for domain in found]
        except self._module.libvirtError as error:
            raise self._error(error) from error

    def live_xml(self, uuid: str) -> tuple[str, bytes] | None:
        """The name and XML of a guest that runs; None if it doesn't, or there is none. Raises LibvirtError."""
        try:
            domain = self.connection.lookupByUUIDString(uuid)
            found = str(domain.XMLDesc()).encode()
            # only a running one's has an id: asked for beside it, the answer might be of another moment
            return (domain.name(), found) if b" id=" in found.partition(b">")[0] else None
        except self._module.libvirtError as error:
            if error.get_error_code() == self._module.VIR_ERR_NO_DOMAIN:
                return None
            raise self._error(error) from error

    def uuid_of(self, guest: str) -> str | None:
        """The UUID of a guest; None if there is none of that name. Raises LibvirtError."""
        try:
            return str(self.connection.lookupByName(guest).UUIDString())
        except self._module.libvirtError as error:
            if error.get_error_code() == self._module.VIR_ERR_NO_DOMAIN:
                return None
            raise self._error(error) from error

    def xml_by_name(self, guest: str) -> bytes:
        """The XML of a guest, whether it runs or not. Raises LibvirtError."""
        try:
            return str(self.connection.lookupByName(guest).XMLDesc()).encode()
        except self._module.libvirtError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Hang up, if that hasn't happened yet."""
        with contextlib.suppress(self._module.libvirtError):
            self.connection.close()

    def _error(self, error: Exception) -> LibvirtError:
        try:
            lost = not self.connection.isAlive()
        except self._module.libvirtError:
            lost = True
        return LibvirtError(f"libvirt: {error}", lost=lost)


@dataclass(frozen=True)
class LibvirtGuest:
    """
    Attributes:
        running: or paused; else it is only defined.
        xml: what it has now; of a guest that doesn't run, what it will have.
    """

    uuid: str
    name: str
    running: bool
    xml: bytes


class LibvirtManager(Libvirt):
    """A connection that may change filters and metadata."""

    def guests(self) -> list[LibvirtGuest]:
        """Every guest, running or not, by name. Raises LibvirtError."""
        with self._said():
            found = [
                LibvirtGuest(each.UUIDString(), each.name(), bool(each.isActive()), str(each.XMLDesc()).encode())
                for each in self.connection.listAllDomains()
            ]
        return sorted(found, key=lambda each: each.name)

    def filters(self) -> dict[str, str]:
        """The XML of every filter, by name. Raises LibvirtError."""
        with self._said():
            return {each.name(): str(each.XMLDesc()) for each in self.connection.listAllNWFilters()}

    def define_filter(self, xml: str) -> None:
        """Define or redefine; libvirt changes the rules of guests that run. Raises LibvirtError."""
        with self._said():
            self.connection.nwfilterDefineXML(xml)

    def filtered_taps(self) -> dict[str, str]:
        """The taps that libvirt's own driver filters, with the filter that each refers to. Raises LibvirtError."""
        with self._said():
            found = {}
            for each in self.connection.listAllNWFilterBindings():
                with contextlib.suppress(self._module.libvirtError):  # it has gone meanwhile
                    found[each.portDev()] = each.filterName()
            return found

    def set_metadata(self, uuid: str, xml: str | None, uri: str) -> None:
        """Of a guest, now and from the next start on; None removes it. Raises LibvirtError."""
        with self._said():
            domain = self.connection.lookupByUUIDString(uuid)
            live = self._module.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
            config = self._module.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0
            domain.setMetadata(self._module.VIR_DOMAIN_METADATA_ELEMENT, xml, "nwf", uri, live | config)

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except self._module.libvirtError as error:
            raise self._error(error) from error


def open_manager(uri: str, hint: str = "install python3-libvirt") -> LibvirtManager:
    """
    A connection that may change filters.

    Raises:
        LibvirtError: there is none to be had. NwfilterHookError: libvirt-python isn't installed.
    """
    module = load_libvirt(hint)
    try:
        return LibvirtManager(module, module.open(uri))
    except module.libvirtError as error:
        raise LibvirtError(f"libvirt, {uri}: {error}", lost=True) from error


def open_libvirt(uri: str, hint: str = "install python3-libvirt") -> Libvirt:
    """
    A connection.

    Raises:
        LibvirtError: there is none to be had. NwfilterHookError: libvirt-python isn't installed.
    """
    module = load_libvirt(hint)
    try:
        return Libvirt(module, module.openReadOnly(uri))
    except module.libvirtError as error:
        raise LibvirtError(f"libvirt, {uri}: {error}", lost=True) from error


def ask_libvirt(guest: str) -> bytes:
    """The guest's XML as libvirt has it now. Raises NwfilterHookError."""
    libvirt = open_libvirt(URI, f"for {guest} install python3-libvirt, or give --xml FILE")
    try:
        return libvirt.xml_by_name(guest)
    finally:
        libvirt.close()
