"""
A sandbox for hooks/qemu as a process: a network namespace, a state directory and a configuration file of its own, and
another guest, the bystander, whose rules and record must survive whatever the tests do.

In:  what libvirt would call the hook with.
Out: a `Ran` for each call; what kernel and state directory hold, as values that compare.

`Sandbox.hook` holds every call to what is always true: nothing on stdout, only one-line messages of ours without
control characters on stderr, and the bystander untouched, byte for byte and handle for handle.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.domains import domain, interface, uuid_of
from tests.support.netns import REPOSITORY, Wire

HOOK = REPOSITORY / "hooks" / "qemu"
PRIVATE_MOUNTS = ("unshare", "--mount", "sh", "-ec")
OWN_SYSFS = (*PRIVATE_MOUNTS, 'mount -t sysfs sysfs /sys; exec "$@"', "sh")
"""In front of a command: /sys shows the network devices of the sandbox."""
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}
HANGS_S = 40.0
"""A hook that needs longer than this hangs, whatever else the machine does."""

GUEST = "web"
TAP = "vnet0"
FILTER = "clean-traffic"
BYSTANDER = "bystander"
BYSTANDER_TAP = "tap-by"
REMOVING = ("stopped", "release")

NOT_XML = "this is no XML at all"
"""A domain XML that nobody can use."""


def guest_xml(
    name: str = GUEST,
    tap: str | None = TAP,
    filter_name: str | None = FILTER,
    parameters: Sequence[tuple[str, str]] = (),
    **options: Any,
) -> str:
    """A guest with one interface; without `tap` as libvirt writes it before start and after stop."""
    return domain(name, [interface(tap, filter_name, parameters, **options)])


SHARED = ("kin", "claimed", "seen", "taken", "since", "reserved", "reserved-nets", "reserved-by", "ipset")
"""What names of sets begin with that are no tap's, but a bridge's or the administrator's."""
OF_BRIDGES = ("zones", "zone-prerouting")
"""What keeps connections of bridges apart."""


@dataclass(frozen=True)
class Ran:
    """
    How a hook ended.

    Attributes:
        status: exit status; negative if a signal ended it.
        lines: of its stderr.
    """

    guest: str
    status: int
    stdout: str
    lines: tuple[str, ...]

    def fine(self) -> None:
        """It did its work and had nothing to say."""
        assert (self.status, self.lines) == (0, ()), self

    def refused(self, *words: str) -> str:
        """libvirt is told to refuse, and one line says why, with `words` in it. Returns the line."""
        assert self.status == 1, self
        assert len(self.lines) == 1, self
        return self._says(*words)

    def excused(self, *words: str) -> str:
        """It failed where a failure must not reach libvirt: status 0, and a line with `words`. Returns the line."""
        assert self.status == 0, self
        return self._says(*words)

    def _says(self, *words: str) -> str:
        for line in self.lines:
            if all(word in line for word in words):
                return line
        raise AssertionError(f"no line has all of {words}: {self}")


@dataclass(frozen=True)
class Snapshot:
    """All that a sandbox holds: a script for nft, and the files of the state directory."""

    ruleset: str
    files: Mapping[str, bytes]


_running: dict[tuple[str, str, str], Snapshot] = {}


OF_THE_HOST = ("lock", "capabilities.json", "~capabilities.json", "configuration")
"""Files of the state directory that say nothing of guests."""


class Sandbox:
    """
    Ends with the `with` block, with everything in it.

    Args:
        snapshot: what it holds at the beginning; must have the bystander. None: the bystander is started.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self._wire = Wire(())
        self._snapshot = snapshot
        self._bystander: tuple[list[str], dict[str, str]] | None = None

    def __enter__(self) -> Sandbox:
        self._wire.__enter__()
        try:
            self.directory = self._wire.directory
            self.state_dir = self.directory / "state"
            self.filters = self.directory / "filters"
            self.filters.mkdir()
            self.conf = self.directory / "nwfilter-hook.conf"
            self.configure()
            if self._snapshot is None:
                self.hook(BYSTANDER, "start", guest_xml(BYSTANDER, BYSTANDER_TAP)).fine()
            else:
                self.load(self._snapshot)
            self._bystander = self._seen_of_bystander()
            assert self._bystander[0], "the bystander has no rules"
            assert len(self._bystander[1]) == 2, "the bystander has a record and owns its tap"
        except BaseException:
            self._wire.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._wire.__exit__(kind, value, traceback)

    def inside(self) -> AbstractContextManager[None]:
        """The calling thread is in the sandbox's network namespace meanwhile."""
        return self._wire.inside()

    # configuration

    def configure(self, text: str = "", *, state_dir: Path | str | None = None, **nftables: object) -> None:
        """Write the configuration file; `nftables` are keys of that section, `text` is further lines of it."""
        lines = [
            "[paths]",
            f"state_dir = {state_dir or self.state_dir}",
            f"filter_dirs = {self.filters}:{REPOSITORY / 'filters'}",
            "[nftables]",
            *(f"{key} = {value}" for key, value in nftables.items()),
            text,
        ]
        self.conf.write_text("\n".join(lines) + "\n")

    def fake_nft(self, body: str, timeout_s: float = 20) -> Path:
        """From now on the hooks run this shell script for nft; $NFT is the real one."""
        path = self.directory / "fake-nft"
        real = shutil.which("nft")
        path.write_text(f"#!/bin/sh\nNFT={real}\nHERE={self.directory}\n{body}\n")
        path.chmod(0o755)
        self.configure(nft=path, timeout_s=timeout_s)
        return path

    def write_filter(self, name: str, rules: str, *, attributes: str = "") -> Path:
        """A filter of the administrator's, one line per line of `rules`, which begin at line 2."""
        path = self.filters / f"{name}.xml"
        path.write_text(f"<filter name='{name}' {attributes}>\n{rules}\n</filter>\n")
        return path

    # hooks

    def environment(self) -> dict[str, str]:
        """The environment that libvirt gives to a hook, and our configuration file."""
        return {**ENVIRONMENT, "NWFILTER_HOOK_CONF": str(self.conf)}

    def begin(
        self,
        guest: str,
        operation: str,
        *,
        command: Sequence[str | Path] = (HOOK,),
        stdin: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a hook as libvirt does, and let it run; `finish` it."""
        suboperation = "end" if operation in REMOVING else "begin"
        with self.inside():
            return subprocess.Popen(
                [*command, guest, operation, suboperation, "-"],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=self.environment(),
            )

    def finish(self, process: subprocess.Popen[bytes], xml: str | bytes, *, timeout_s: float = HANGS_S) -> Ran:
        """Hand the domain XML to a hook that was begun, and see it end."""
        data = xml.encode() if isinstance(xml, str) else xml
        with process:
            try:
                stdout, stderr = process.communicate(data if process.stdin else None, timeout=timeout_s)
            except BaseException:
                process.kill()
                raise
        arguments = process.args
        assert isinstance(arguments, list)
        lines = tuple(stderr.decode(errors="surrogateescape").split("\n")[:-1])
        return Ran(os.fsdecode(arguments[-4]), process.returncode, stdout.decode(errors="replace"), lines)

    def hook(
        self,
        guest: str,
        operation: str,
        xml: str | bytes,
        *,
        command: Sequence[str | Path] = (HOOK,),
        timeout_s: float = HANGS_S,
    ) -> Ran:
        """Run a hook as libvirt does, and check what is true of every hook."""
        ran = self.finish(self.begin(guest, operation, command=command), xml, timeout_s=timeout_s)
        self.check(ran)
        return ran

    def check(self, ran: Ran) -> None:
        """What is true of every hook, whatever it was given."""
        assert ran.stdout == ""
        for line in ran.lines:
            assert line.startswith("nwfilter-hook: "), ran
            assert line.isprintable(), ran
        self.check_bystander()

    def start(self, guest: str = GUEST, tap: str = TAP, filter_name: str = FILTER) -> str:
        """Start a guest with one interface; its XML."""
        xml = guest_xml(guest, tap, filter_name)
        self.hook(guest, "start", xml).fine()
        return xml

    def running(self, guest: str = GUEST, tap: str = TAP, filter_name: str = FILTER) -> str:
        """
        A guest that runs, in a sandbox in which nothing has happened yet; its XML.

        The same as `start`, but what the hook does is done once and then copied.
        """
        key = (guest, tap, filter_name)
        if key in _running:
            self.load(_running[key])
        else:
            xml = self.start(*key)
            _running[key] = Snapshot(self._bystanders_script() + self.script_of(guest, xml), self.save().files)
        return guest_xml(*key)

    def stop(self, guest: str = GUEST) -> None:
        """What libvirt calls at the end of a guest's life: no tap names in the XML any more."""
        self.hook(guest, "stopped", guest_xml(guest, None)).fine()

    # the kernel

    def run(self, *command: str | Path, stdin: str = "") -> str:
        """What `command` prints when it is run in the sandbox's namespace; it must succeed."""
        return self._wire.run(*command, stdin=stdin).stdout

    def nft(self, *arguments: str) -> str:
        """What the real nft prints."""
        return self.run("nft", *arguments)

    def nft_script(self, text: str) -> None:
        """Carry out a transaction of somebody else's."""
        self.run("nft", "-f", "-", stdin=text)

    def plug(self, *taps: str) -> None:
        """Make devices of these names, up, in no bridge."""
        self._wire.plug(*taps, bridge=None)

    def plug_macvtap(self, tap: str, mac: str, lower: str) -> None:
        """Make the macvtap device `tap` on top of `lower`."""
        self._wire.plug_macvtap(tap, mac, lower)

    def kernel(self, tap: str | None = None, *, exact: bool = False) -> list[str]:
        """
        What nft lists, an object a line, sorted by name; the rules of a chain in their order.

        Args:
            tap: only what belongs to it: chains, rules, sets, map elements; none of another tap's.
            exact: with handles, so that a rule that was replaced by an equal one shows; else without.
        """
        return self._listing(exact).get(tap, [])

    def _listing(self, exact: bool) -> dict[str | None, list[str]]:
        """What `kernel` returns, for every tap, and for None."""
        found: dict[str | None, list[tuple[str, str]]] = {}

        def add(tap: str | None, kind: str, owner: str, value: dict[str, Any]) -> None:
            line = json.dumps({kind: _plain(value, exact)})
            found.setdefault(tap, []).append((f"{kind} {value['family']} {owner}", line))

        for item in json.loads(self.nft("--json", "list", "ruleset"))["nftables"]:
            ((kind, value),) = item.items()
            if kind == "metainfo":
                continue
            owner = value["chain"] if kind == "rule" else value["name"]
            if owner in OF_BRIDGES:
                continue
            if kind == "map":
                value["elem"] = sorted(value.get("elem", ()), key=str)
                for element in value["elem"]:
                    add(element[0], kind, owner, {**value, "elem": [element]})
            elif "/" in owner and kind in ("rule", "chain", "set") and owner.split("/")[0].rstrip("6") not in SHARED:
                add(owner.split("/")[1], kind, owner, value)
            add(None, kind, owner, value)
        # stable: the rules of a chain keep their order
        return {tap: [line for _, line in sorted(lines, key=lambda pair: pair[0])] for tap, lines in found.items()}

    def by_tap(self) -> dict[str, list[str]]:
        """What `kernel` lists for each tap that has anything, in one go."""
        return {tap: lines for tap, lines in self._listing(False).items() if tap is not None}

    def chains(self, tap: str) -> list[str]:
        """Names of the tap's chains, but for what stands at a bridge port's ingress."""
        chains = [json.loads(line).get("chain") for line in self.kernel(tap)]
        return sorted(chain["name"] for chain in chains if chain and not chain["name"].startswith("ingress/"))

    def in_force(self, *taps: str) -> bool:
        """Whether each tap has chains, and traffic is led to them: by map elements, or by hooks of their own."""
        listing = self.by_tap()
        return all(_is_led_to_chains(listing.get(tap, [])) for tap in taps or (TAP,))

    def quarantined(self, tap: str = TAP) -> bool:
        """Whether from/TAP, to/TAP and, of a bridge port, ingress/TAP are all the tap has, and each only drops."""
        if self.chains(tap) != [f"from/{tap}", f"to/{tap}"] or not self.in_force(tap):
            return False
        rules = [json.loads(line)["rule"] for line in self.kernel(tap) if '"rule"' in line]
        words: dict[str, list[list[str]]] = {}
        for rule in rules:
            expressions = [word for expression in rule["expr"] for word in expression if word != "counter"]
            words.setdefault(rule["chain"], []).append(expressions)
        return all(found == [["drop"]] for found in words.values())

    # the state directory

    def files(self, directory: Path | None = None) -> dict[str, str]:
        """What the state directory says of guests: path to content (of a link its target)."""
        top = directory or self.state_dir
        found: dict[str, str] = {}
        for path in sorted(top.rglob("*")) if top.is_dir() else ():
            if path.is_symlink():
                found[str(path.relative_to(top))] = f"link to {os.readlink(path)}"
            elif path.is_file() and str(path.relative_to(top)) not in OF_THE_HOST:
                found[str(path.relative_to(top))] = path.read_text(errors="surrogateescape")
        return found

    def record_path(self, guest: str = GUEST) -> Path:
        """Where the guest's record is."""
        return self.state_dir / "domains" / f"{uuid_of(guest)}.json"

    def record(self, guest: str = GUEST) -> dict[str, Any]:
        """The guest's record."""
        found: dict[str, Any] = json.loads(self.record_path(guest).read_text())
        return found

    # what must hold

    def _seen_of_bystander(self) -> tuple[list[str], dict[str, str]]:
        uuid = uuid_of(BYSTANDER)
        files = {path: text for path, text in self.files().items() if uuid in path or text == uuid}
        return self.kernel(BYSTANDER_TAP, exact=True), files

    def forget_bystander(self) -> None:
        """It is going to change or to be out of sight, on purpose."""
        self._bystander = None

    def check_bystander(self) -> None:
        """The bystander's chains, rules, sets, map elements, record and tap are what they were, handles too."""
        if self._bystander is not None:
            assert self._seen_of_bystander() == self._bystander

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """What happens meanwhile leaves kernel and state directory exactly as they were."""
        before = self.kernel(exact=True), self.files()
        yield
        assert (self.kernel(exact=True), self.files()) == before

    def assert_nothing_left(self, guest: str = GUEST, *taps: str) -> None:
        """Neither kernel nor state directory knows the guest or its taps."""
        self.assert_nothing_left_of_tap(*(taps or (TAP,)))
        uuid = uuid_of(guest)
        assert [path for path, text in self.files().items() if uuid in path or text == uuid] == []
        self.assert_tidy()

    def assert_nothing_left_of_tap(self, *taps: str) -> None:
        """Neither kernel nor state directory knows the taps."""
        listing = self.by_tap()
        for tap in taps:
            assert listing.get(tap, []) == []
            assert not (self.state_dir / "taps" / tap).exists()

    def assert_tidy(self) -> None:
        """Nothing half-written or half-done lies in the state directory: records, and owners of taps in them."""
        paths = list(self.files())
        taps = {each["tap"] for path in paths for each in self._interfaces(path)}
        strange = [
            path
            for path in paths
            if not (path.startswith("domains/") and path.endswith(".json"))
            and not (path.startswith("taps/") and path[5:] in taps)
            and path not in ("capabilities.json", "configuration")
        ]
        assert strange == []

    def _interfaces(self, path: str) -> list[dict[str, Any]]:
        record = path.startswith("domains/") and path.endswith(".json")
        found: list[dict[str, Any]] = json.loads((self.state_dir / path).read_text())["bindings"] if record else []
        return found

    # snapshots

    def script_of(self, guest: str, xml: str) -> str:
        """The transaction of a guest's start."""
        command = (sys.executable, "-m", "nwfilter_hook", "replay", guest, "start", "--xml", "-", "--dry-run")
        with self.inside():
            done = subprocess.run(
                command, input=xml, env=self.environment(), cwd=REPOSITORY, capture_output=True, text=True, check=True
            )
        return done.stdout

    def _bystanders_script(self) -> str:
        return self.script_of(BYSTANDER, guest_xml(BYSTANDER, BYSTANDER_TAP))

    def only_bystander(self) -> Snapshot:
        """A sandbox in which nothing else has happened."""
        return Snapshot(self._bystanders_script(), self.save().files)

    def save(self) -> Snapshot:
        """
        All there is, to be loaded later; but where nft has a short form for the beginning of a rule (`ip saddr` for
        `ether type ip ip saddr`), that is what is loaded, and it isn't quite the same.
        """
        files = {path: (self.state_dir / path).read_bytes() for path in self.files()}
        return Snapshot(self.nft("list", "ruleset"), files)

    def load(self, snapshot: Snapshot) -> None:
        """Make everything as it was, but for handles; the bystander's are remembered anew."""
        self.nft_script("flush ruleset\n" + snapshot.ruleset)
        shutil.rmtree(self.state_dir, ignore_errors=True)
        for path, data in snapshot.files.items():
            target = self.state_dir / path
            for directory in (self.state_dir, target.parent):
                directory.mkdir(mode=0o700, exist_ok=True)
            target.write_bytes(data)
            target.chmod(0o600)
        if self._bystander is not None:
            self._bystander = self._seen_of_bystander()


def _is_led_to_chains(lines: list[str]) -> bool:
    items = [json.loads(line) for line in lines]
    roots = [item["chain"] for item in items if "chain" in item and item["chain"]["name"].count("/") == 1]
    elements = [verdict for item in items if "map" in item for _, verdict in item["map"]["elem"]]
    led_to = {verdict["jump"]["target"] for verdict in elements if "jump" in verdict}
    return bool(roots) and all("hook" in chain or chain["name"] in led_to for chain in roots)


def _plain(value: Any, exact: bool) -> Any:
    """JSON without handles and without what counters counted."""
    if exact:
        return value
    if isinstance(value, dict):
        return {
            key: None if key == "counter" else _plain(each, exact) for key, each in value.items() if key != "handle"
        }
    return [_plain(each, exact) for each in value] if isinstance(value, list) else value


def killed(ran: Ran) -> bool:
    """Whether SIGKILL ended the hook."""
    return ran.status == -signal.SIGKILL
