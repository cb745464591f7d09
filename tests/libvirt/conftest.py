"""
Real libvirt, real QEMU, the hook installed as an administrator installs it: the fixtures.

The network of the private host (`tests.support.libvirtd`), with no bridge learning anything:

    br0  10.0.0.254/24  guests' taps, and a veth "port" whose other end "watch" is where the tests look and send
    virbr7              libvirt's own network "isolated"; veth "port7", "watch7"
    low0                a veth to put macvtaps on; what leaves by it arrives at "low1"

Beside our hook, in libvirt's hooks/qemu.d, a script records each call and what the kernel held right after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.frames import GUEST, GUEST_IP, OTHER, OTHER_IP, arp, udp
from tests.support.guest import GuestShell, build_initramfs, domain_xml, guest_uuid, mark, unpack_kernel
from tests.support.libvirtd import Kernel, Libvirtd, PrivateHost, Wire, wait_for
from tests.support.stock_kernel import stock_kernel

REPOSITORY = Path(__file__).resolve().parent.parent.parent
EVENTS = "/run/hook-events"
HOOK = "/etc/libvirt/hooks/qemu.d/50-nwfilter-hook"
STATE_DIR = "/run/nwfilter-hook"
ADMIN_FILTERS = "/etc/nwfilter-hook/filters"
CONFIGURATION = "/etc/nwfilter-hook/nwfilter-hook.conf"

Image = tuple[Path, Path]  # kernel, initramfs

HONEST = arp()
WELCOME = udp(src=OTHER, dst=GUEST, src_ip=OTHER_IP, dst_ip=GUEST_IP)

# Runs after our hook, whether that failed or not. Prints nothing: at `restore` that would be the guest's new XML.
RECORDER = f"""\
#!/bin/sh
event={EVENTS}/$(date +%s%N).$1.$2
mkdir -p {EVENTS}
cat >"$event.xml"
nft list table bridge nwfilter >"$event.nft" 2>/dev/null
pgrep -fc "guest=$1," >"$event.qemu"
: >"$event.done"
exit 0
"""


@dataclass(frozen=True)
class Event:
    """
    One call of the qemu hook.

    Attributes:
        xml: what was on standard input.
        table: our table as `nft list` printed it right after our hook, "" if there was none.
        qemu_runs: whether the guest's QEMU process existed.
    """

    operation: str
    xml: str
    table: str
    qemu_runs: bool


class Host(PrivateHost):
    """The private host with its bridges, libvirtd, and our hook."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = Kernel(self)
        self.libvirtd = Libvirtd(self)

    def add_network(self) -> None:
        """Make the bridge, the wires and the macvtap's lower device; see the module."""
        self.ip(
            "link add br0 type bridge ageing_time 0 mcast_snooping 0",
            "addr add 10.0.0.254/24 dev br0",
            "link add port type veth peer name watch",
            "link add port7 type veth peer name watch7",
            "link add low0 type veth peer name low1",
            "link set port master br0",
            *(f"link set {device} up" for device in ("br0", "port", "watch", "port7", "watch7", "low0", "low1")),
        )

    def install_hook(self) -> None:
        """Install hook, configuration and recorder as the README tells an administrator, and twins of our filters."""
        # run() lets it end before anything else happens here
        self.run("make", "--silent", "-C", str(REPOSITORY), "hook")
        assert self.path(HOOK).is_file(), f"{HOOK} is missing"
        self.write("/etc/libvirt/hooks/qemu.d/90-record", RECORDER, mode=0o755)
        self.write(CONFIGURATION, configuration())
        self.path(ADMIN_FILTERS).mkdir(parents=True)
        self.path("/run/guests").mkdir(parents=True)
        for stock in sorted((REPOSITORY / "filters").glob("*.xml")):
            self.write(f"/etc/libvirt/nwfilter/{stock.name}", twin_of(stock.read_text()))

    def add_isolated_network(self) -> None:
        """Define and start libvirt's network "isolated", and put a wire into its bridge."""
        self.write(
            "/run/isolated.xml",
            "<network><name>isolated</name><bridge name='virbr7' stp='off' delay='0'/></network>",
        )
        self.libvirtd.virsh("net-create", "/run/isolated.xml")
        self.ip("link set virbr7 type bridge ageing_time 0 mcast_snooping 0", "link set port7 master virbr7")

    def add_filter(self, name: str, content: str) -> Path:
        """Put a filter into the administrator's directory and its twin into libvirt; the file, to remove it."""
        uuid = guest_uuid(f"filter-{name}")
        xml = f"<filter name='{name}' chain='root'>\n<uuid>{uuid}</uuid>\n{content}\n</filter>\n"
        self.add_twin(xml)
        self.write(f"{ADMIN_FILTERS}/{name}.xml", xml)
        return self.path(f"{ADMIN_FILTERS}/{name}.xml")

    def add_twin(self, xml: str) -> None:
        """Define a filter without its rules in the running libvirt."""
        self.write("/run/twin.xml", twin_of(xml))
        self.libvirtd.virsh("nwfilter-define", "/run/twin.xml")

    def record_path(self, guest: str) -> Path:
        """Where the hook keeps its record of a guest."""
        return self.path(f"{STATE_DIR}/domains/{guest_uuid(guest)}.json")

    def traces(self, guest: str, *taps: str) -> list[str]:
        """What is left of a guest and its taps: in the kernel, and files named after them in the state directory."""
        names = (guest_uuid(guest), *taps)
        files = [str(path) for path in self.path(STATE_DIR).rglob("*") if path.name.startswith(names)]
        return [trace for tap in taps for trace in self.kernel.traces(tap)] + files

    def events(self, guest: str, since: int = 0) -> list[Event]:
        """The hook calls for `guest`, oldest first, without the first `since`."""
        found = []
        for done in sorted(self.path(EVENTS).glob(f"*.{guest}.*.done")):
            table, processes = done.with_suffix(".nft").read_text(), done.with_suffix(".qemu").read_text()
            operation = done.name.split(".")[-2]
            found.append(Event(operation, done.with_suffix(".xml").read_text(), table, int(processes) > 0))
        return found[since:]

    def _called_since(self, guest: str, before: int) -> bool:
        return len(self.events(guest)) > before

    def restart_libvirtd(self) -> None:
        """Stop and start the daemon, and wait until it has called `reconnect` for each running guest."""
        running = self.libvirtd.virsh("list", "--name").stdout.split()
        before = {guest: len(self.events(guest)) for guest in running}
        self.libvirtd.stop()
        self.libvirtd.start()
        for guest in running:
            wait_for(f"reconnect of {guest}", partial(self._called_since, guest, before[guest]))


def configuration(nftables: str = "") -> str:
    """The hook's configuration file, `nftables` being the content of that section."""
    directories = f"{ADMIN_FILTERS}:{REPOSITORY / 'filters'}"
    return f"[paths]\nstate_dir = {STATE_DIR}\nfilter_dirs = {directories}\n[nftables]\n{nftables}\n"


def twin_of(xml: str) -> str:
    """The same filter by name, chain and UUID, without any rule: libvirt's own driver does nothing for it."""
    root = ElementTree.fromstring(xml)
    chain = root.get("chain") or "root"
    priority = f" priority='{root.get('priority')}'" if root.get("priority") else ""
    uuid = root.findtext("uuid")
    assert uuid, f"{root.get('name')} has no UUID, so libvirt can't know it as the same"
    return f"<filter name='{root.get('name')}' chain='{chain}'{priority}><uuid>{uuid.strip()}</uuid></filter>\n"


@dataclass
class Guest:
    """A guest that was started; its shell is open."""

    host: Host
    name: str
    shell: GuestShell

    def taps(self) -> list[str]:
        """Host ends of its interfaces now, in the order of the XML."""
        xml = self.host.libvirtd.virsh("dumpxml", self.name).stdout
        return [target.get("dev", "") for target in ElementTree.fromstring(xml).iterfind("devices/interface/target")]

    @property
    def tap(self) -> str:
        """The host end of its first interface."""
        return self.taps()[0]

    def process(self) -> str:
        """The process id of its QEMU, "" if there is none."""
        return self.host.run("pgrep", "-f", f"guest={self.name},", check=False).stdout.strip()

    def open_shell(self) -> None:
        """Open the shell anew: QEMU has another end of it after a restore."""
        self.shell.close()
        self.shell = GuestShell(self.host.path(f"/run/guests/{self.name}.sock"))
        self.shell.wait_until_up()


class Link:
    """
    One interface of a guest, and the wire behind its host end.

    Every question is asked with a twin: a frame that must pass, sent right after the one in question on the same way.
    When the twin has arrived, the other one has or never will.

    Attributes:
        honest: a frame the guest may send.
        welcome: a frame the guest may receive.
    """

    def __init__(
        self,
        guest: Guest,
        wire: Wire,
        *,
        device: str = "eth0",
        honest: bytes = HONEST,
        welcome: bytes = WELCOME,
    ) -> None:
        self._guest = guest
        self._wire = wire
        self._device = device
        self._honest = honest
        self._welcome = welcome

    def passes(self, frame: bytes) -> bool:
        """Whether `frame` arrives on the wire when the guest sends it."""
        asked, twin = mark(frame), mark(self._honest)
        self._guest.shell.send(asked, self._device)
        self._guest.shell.send(twin, self._device)
        wait_for(f"an honest frame of {self._guest.name}", lambda: self._wire.heard(twin))
        return self._wire.heard(asked)

    def delivers(self, frame: bytes) -> bool:
        """Whether `frame` arrives in the guest when the wire sends it."""
        asked, twin = mark(frame), mark(self._welcome)
        self._wire.send(asked)
        self._wire.send(twin)
        shell = self._guest.shell
        wait_for(f"a welcome frame for {self._guest.name}", lambda: shell.heard(twin, self._device))
        return shell.heard(asked, self._device)


class Guests:
    """Makes guests, and ends those that are left."""

    def __init__(self, host: Host, kernel: Path, initramfs: Path) -> None:
        self._host = host
        self._kernel = kernel
        self._initramfs = initramfs
        self._defined: list[str] = []
        self._started: list[Guest] = []

    def define(self, name: str, *interfaces: str, metadata: str = "") -> None:
        """Define a guest without starting it."""
        xml = domain_xml(name, self._kernel, self._initramfs, interfaces, metadata)
        self._host.write(f"/run/guests/{name}.xml", xml)
        self._host.libvirtd.virsh("define", f"/run/guests/{name}.xml")
        self._defined.append(name)

    def start(self, name: str, *interfaces: str, metadata: str = "") -> Guest:
        """Define and start a guest; it boots meanwhile."""
        self.define(name, *interfaces, metadata=metadata)
        self._host.libvirtd.virsh("start", name)
        guest = Guest(self._host, name, GuestShell(self._host.path(f"/run/guests/{name}.sock")))
        self._started.append(guest)
        return guest

    def boot(self, name: str, *interfaces: str, metadata: str = "") -> Guest:
        """Define and start a guest, and wait until it has booted."""
        guest = self.start(name, *interfaces, metadata=metadata)
        guest.shell.wait_until_up()
        return guest

    def remove(self) -> None:
        """Destroy and undefine what is left."""
        for guest in self._started:
            guest.shell.close()
        for name in self._defined:
            self._host.libvirtd.virsh("destroy", name, check=False)
            self._host.libvirtd.virsh("undefine", name, check=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure shows what libvirtd, the guests' consoles and the kernel have to say; it is all gone afterwards."""
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    host = getattr(item, "funcargs", {}).get("host")
    if not report.failed or not isinstance(host, Host):
        return
    report.sections.append(("libvirtd", host.libvirtd.log()))
    for console in sorted(host.path("/run/guests").glob("*.log")):
        report.sections.append((f"console of {console.stem}", console.read_text(errors="replace")[-2000:]))
    for family, table in Kernel.TABLES:
        listed = host.run("nft", "list", "table", family, table, check=False).stdout
        report.sections.append((f"table {family} {table}", listed))


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """The private host, libvirtd running on it."""
    host = Host()
    try:
        host.add_network()
        host.install_hook()
        host.libvirtd.start()
        host.add_isolated_network()
        yield host
    finally:
        host.close()


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The kernel and the initramfs that guests boot."""
    kernel = stock_kernel()
    with TemporaryDirectory(prefix="nwfilter-hook-guest-") as directory:
        work = Path(directory)
        yield unpack_kernel(kernel.vmlinuz, work), build_initramfs(kernel, work)


@pytest.fixture
def guests(host: Host, image: Image) -> Iterator[Guests]:
    """Guests of one test; none is left after it."""
    made = Guests(host, *image)
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def wire(host: Host) -> Iterator[Wire]:
    """What a machine beside the guests on br0 sees, and a way to send to them."""
    wire = host.wire("watch")
    yield wire
    wire.close()
