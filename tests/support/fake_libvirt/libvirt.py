"""
A libvirt without a daemon, as far as the project asks it: guests are the files UUID.xml in $FAKE_LIBVIRT.

If there is a file `meanwhile` in it, that is a shell script which is run, once, after XML was read and before it is
handed over: what happens while libvirt is asked.

Whoever asks while somebody holds the file $FAKE_LIBVIRT_LOCK is refused: libvirt waits for a hook that waits for it.
Whoever asks for XML while somebody holds the file UUID.job waits for it, as for a hook of the same guest that runs.

Each UUID that stands in a line of the file `events` is one event of an attached device; the file is gone then.

Filters are the files nwfilter/NAME.xml; whoever asks which taps are filtered hears of none.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

VIR_CONNECT_LIST_DOMAINS_ACTIVE = 1
VIR_ERR_NO_DOMAIN = 42
VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED = 0, 15
VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, VIR_DOMAIN_EVENT_ID_METADATA_CHANGE = 19, 23


class libvirtError(Exception):  # noqa: N801 - libvirt's name
    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code

    def get_error_code(self) -> int:
        return self.code


def _refuse_under_lock() -> None:
    path = os.environ.get("FAKE_LIBVIRT_LOCK", "")
    if os.path.exists(path):
        with Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_handlers: dict[int, Callable[[virConnect, virDomain, str, None], None]] = {}


class virDomain:  # noqa: N801
    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = ElementTree.parse(path).findtext("name") or ""

    def UUIDString(self) -> str:  # noqa: N802
        return self._path.stem

    def name(self) -> str:
        return self._name

    def isActive(self) -> int:  # noqa: N802
        return 1

    def XMLDesc(self) -> str:  # noqa: N802
        _refuse_under_lock()
        job = self._path.with_suffix(".job")
        if job.exists():
            with job.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
        xml = self._path.read_text()
        meanwhile = self._path.with_name("meanwhile")
        if meanwhile.exists():
            script = meanwhile.read_text()
            meanwhile.unlink()
            subprocess.run(["sh", "-ec", script], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return xml


class virNWFilter:  # noqa: N801
    def __init__(self, path: Path) -> None:
        self._path = path

    def name(self) -> str:
        return self._path.stem

    def XMLDesc(self) -> str:  # noqa: N802
        return self._path.read_text()


class virConnect:  # noqa: N801
    def __init__(self) -> None:
        self._directory = Path(os.environ["FAKE_LIBVIRT"])

    def listAllDomains(self, flags: int = 0) -> list[virDomain]:  # noqa: N802
        _refuse_under_lock()
        return [virDomain(path) for path in sorted(self._directory.glob("*.xml"))]

    def lookupByUUIDString(self, uuid: str) -> virDomain:  # noqa: N802
        _refuse_under_lock()
        path = self._directory / f"{uuid}.xml"
        if not path.exists():
            raise libvirtError(f"Domain not found: no domain with matching uuid '{uuid}'", VIR_ERR_NO_DOMAIN)
        return virDomain(path)

    def lookupByName(self, name: str) -> virDomain:  # noqa: N802
        for found in self.listAllDomains():
            if found.name() == name:
                return found
        raise libvirtError(f"Domain not found: no domain with matching name '{name}'", VIR_ERR_NO_DOMAIN)

    def listAllNWFilters(self) -> list[virNWFilter]:  # noqa: N802
        _refuse_under_lock()
        return [virNWFilter(path) for path in sorted((self._directory / "nwfilter").glob("*.xml"))]

    def nwfilterDefineXML(self, xml: str) -> None:  # noqa: N802
        _refuse_under_lock()
        name = ElementTree.fromstring(xml).get("name")
        (self._directory / f"nwfilter/{name}.xml").write_text(xml)

    def listAllNWFilterBindings(self) -> list[object]:  # noqa: N802
        return []

    def isAlive(self) -> int:  # noqa: N802
        return 1

    def close(self) -> int:
        return 0

    def setKeepAlive(self, interval: int, count: int) -> int:  # noqa: N802
        return 0

    def registerCloseCallback(self, callback: object, opaque: object) -> None:  # noqa: N802
        pass

    def domainEventRegisterAny(  # noqa: N802
        self, domain: object, event: int, callback: Callable[[virConnect, virDomain, str, None], None], opaque: object
    ) -> int:
        _handlers[event] = callback
        return event


def openReadOnly(uri: str) -> virConnect:  # noqa: N802
    if not os.path.isdir(os.environ["FAKE_LIBVIRT"]):
        raise libvirtError("Failed to connect socket: No such file or directory")
    return virConnect()


def open(uri: str) -> virConnect:
    return openReadOnly(uri)


def registerErrorHandler(handler: object, context: object) -> None:  # noqa: N802
    pass


def virEventRegisterDefaultImpl() -> None:  # noqa: N802
    pass


def virEventAddTimeout(interval: int, callback: object, opaque: object) -> int:  # noqa: N802
    return 1


def virEventRunDefaultImpl() -> None:  # noqa: N802
    path = Path(os.environ["FAKE_LIBVIRT"], "events")
    if not path.exists() or VIR_DOMAIN_EVENT_ID_DEVICE_ADDED not in _handlers:
        time.sleep(0.1)
        return
    uuids = path.read_text().split()
    path.unlink()
    for uuid in uuids:
        domain = virDomain(path.with_name(f"{uuid}.xml"))
        _handlers[VIR_DOMAIN_EVENT_ID_DEVICE_ADDED](virConnect(), domain, "net0", None)
