"""
A host of a test's own: configuration, a directory of local filters before the stock ones, a state directory, and if a
`Wire` is given a network namespace with nft to filter in.

In:  what libvirt would call the hook with, arguments of the command line, files.
Out: a `Ran` for each call; what kernel, records and filter files hold, as values that compare.

`hook` runs hooks/qemu as a process, as libvirt does, and holds every call to what is always true: nothing on stdout,
only one-line messages of ours without control characters on stderr, and another guest, the bystander, untouched, byte
for byte and handle for handle. `event` and `cli` do in this process what hook and command do; `start` and `stop`, which
lead to what a test is about, are events.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from nwfilter_hook import hook
from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.cli import main as cli
from nwfilter_hook.config import CONFIG_VARIABLE, read_config
from nwfilter_hook.filters.format import format_filter
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.host import Host, open_host
from nwfilter_hook.operations.update import plan_update
from nwfilter_hook.operations.verify import find_differences
from tests.support.domains import Parameters, domain, interface, uuid_of
from tests.support.netns import REPOSITORY, Wire

HOOK = REPOSITORY / "hooks" / "qemu"
STOCK = REPOSITORY / "filters"
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
SHARED = ("kin", "claimed", "seen", "taken", "since", "reserved", "reserved-nets", "reserved-by", "ipset")
"""What names of sets begin with that are no tap's, but a bridge's or the administrator's."""
OF_BRIDGES = ("zones", "zone-prerouting")
"""What keeps connections of bridges apart."""
OF_THE_HOST = (
    "lock",
    "capabilities.json",
    "seen",
    "~seen",
    "~capabilities.json",
    "configuration",
    "tallies.json",
    "~tallies.json",
    "tallies.lock",
)
"""Files of the state directory that say nothing of guests."""


def guest_xml(
    name: str = GUEST,
    tap: str | None = TAP,
    filter_name: str | None = FILTER,
    parameters: Parameters = (),
    **options: Any,
) -> str:
    """A guest with one interface; without `tap` as libvirt writes it before start and after stop."""
    return domain(name, [interface(tap, filter_name, parameters, **options)])


def filter_xml(name: str, *lines: str, uuid: str = "", attributes: str = "") -> str:
    """A filter; its `lines` begin at line 2."""
    uuid_line = f"  <uuid>{uuid}</uuid>\n" if uuid else ""
    body = "".join(f"  {line}\n" for line in lines)
    return f"<filter name='{name}' {attributes}>\n{body}{uuid_line}</filter>\n"


def reference(name: str, **parameters: str) -> str:
    """A <filterref>."""
    inner = "".join(f"<parameter name='{key}' value='{value}'/>" for key, value in parameters.items())
    return f"<filterref filter='{name}'>{inner}</filterref>"


def drop_udp(port: int | str, direction: str = "out") -> str:
    """A rule that drops UDP to a port; on layer 2, so that every kernel can do it."""
    return f"<rule action='drop' direction='{direction}'><ip protocol='udp' dstportstart='{port}'/></rule>"


def normal_form(data: bytes, path: str, uuid: str | None = None) -> str:
    """The filter in `data`, in normal form, with `uuid` if it has none."""
    parsed = parse_filter(data, path)
    return format_filter(replace(parsed, uuid=parsed.uuid or uuid))


@dataclass(frozen=True)
class Ran:
    """
    How a hook or a command ended.

    Attributes:
        status: exit status; negative if a signal ended it.
    """

    status: int
    out: str
    err: str

    @property
    def lines(self) -> tuple[str, ...]:
        """Of its stderr."""
        return tuple(self.err.split("\n")[:-1])

    @property
    def json(self) -> Any:
        """What it printed for programs."""
        return json.loads(self.out)

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status == -signal.SIGKILL

    def fine(self) -> Ran:
        """It did its work, without a word on stderr but for warnings that `define` has about a filter."""
        assert self.status == 0, self
        assert [line for line in self.lines if not line.startswith("warning: ")] == [], self
        return self

    def refused(self, *words: str) -> str:
        """Exit status 1, nothing on stdout, and one line of ours with `words` in it. Returns the line."""
        assert (self.status, self.out, len(self.lines)) == (1, "", 1), self
        return self._says(*words)

    def excused(self, *words: str) -> str:
        """It failed where a failure must not reach libvirt: status 0, and a line with `words`. Returns the line."""
        assert self.status == 0, self
        return self._says(*words)

    def _says(self, *words: str) -> str:
        for line in self.lines:
            if all(word in line for word in words):
                assert line.startswith("nwfilter-hook: "), self
                assert line.isprintable(), self
                return line
        raise AssertionError(f"no line has all of {words}: {self}")


@dataclass(frozen=True)
class Snapshot:
    """All that a sandbox holds: a script for nft, and the files of the state directory."""

    ruleset: str
    files: Mapping[str, bytes]


class _Stdin(io.TextIOWrapper):
    """Standard input from a pipe, or from a terminal at which somebody types."""

    def __init__(self, data: bytes, terminal: bool) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


_running: dict[tuple[str, str, str], Snapshot] = {}


class Sandbox:
    """
    See the module.

    Args:
        directory: everything of this host is in it.
        wire: where nft works; without one, only what needs no kernel can be done.
    """

    def __init__(self, directory: Path, wire: Wire | None = None) -> None:
        self.directory = directory
        self.filters = directory / "filters"
        self.state_dir = directory / "state"
        self.conf = directory / "nwfilter-hook.conf"
        self._wire = wire
        self._inside = False
        self._bystander: tuple[list[str], dict[str, str]] | None = None
        self.configure()

    @property
    def wire(self) -> Wire:
        """The bridge and its taps."""
        assert self._wire is not None
        return self._wire

    def configure(
        self,
        text: str = "",
        *,
        state_dir: Path | str | None = None,
        filter_dirs: Sequence[Path | str] | None = None,
        **nftables: object,
    ) -> None:
        """Write the configuration file; `nftables` are keys of that section, `text` is further lines."""
        lines = [
            "[paths]",
            f"state_dir = {state_dir or self.state_dir}",
            f"filter_dirs = {':'.join(map(str, filter_dirs or (self.filters, STOCK)))}",
            "[nftables]",
            *(f"{key} = {value}" for key, value in nftables.items()),
            text,
        ]
        self.conf.write_text("\n".join(lines) + "\n")

    def fake_nft(self, body: str, timeout_s: float = 20) -> None:
        """From now on this shell script is nft; $NFT is the real one, $HERE this host's directory."""
        path = self.directory / "fake-nft"
        path.write_text(f"#!/bin/sh\nNFT={shutil.which('nft')}\nHERE={self.directory}\n{body}\n")
        path.chmod(0o755)
        self.configure(nft=path, timeout_s=timeout_s)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is on this host meanwhile: its configuration, its network."""
        with contextlib.ExitStack() as stack:
            if self._wire and not self._inside:
                stack.enter_context(self._wire.inside())
                stack.enter_context(mock.patch.object(self, "_inside", True))
            stack.enter_context(mock.patch.dict(os.environ, {CONFIG_VARIABLE: str(self.conf)}))
            yield

    def host(self) -> Host:
        """The package's own view of this host; the configuration is read now."""
        with self.inside():
            return open_host(read_config(), lambda line: None)

    # commands and events in this process

    def _captured(
        self, call: Callable[[], int | None], arguments: Sequence[str], stdin: str | bytes = "", terminal: bool = False
    ) -> Ran:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with (
            self.inside(),
            mock.patch.multiple(sys, argv=list(arguments), stdin=_Stdin(data, terminal), stdout=out, stderr=err),
        ):
            try:
                status = call() or 0
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        texts = [stream.buffer.getvalue().decode() for stream in (out, err) if isinstance(stream.buffer, io.BytesIO)]
        return Ran(status, *texts)

    def cli(self, *arguments: str | Path, stdin: str | bytes = "", terminal: bool = False) -> Ran:
        """Run `nwfilter-hook ARGUMENTS`."""
        return self._captured(cli.main, ["nwfilter-hook", *map(str, arguments)], stdin, terminal)

    def define(self, xml: str, *options: str) -> Ran:
        """`define -`."""
        return self.cli("define", "-", *options, stdin=xml)

    def event(self, guest: str, operation: str, xml: str) -> Ran:
        """What hooks/qemu does."""
        return self._captured(lambda: hook.run(guest, operation, xml.encode()), ["qemu"])

    def start(
        self,
        guest: str = GUEST,
        tap: str = TAP,
        filter_name: str = FILTER,
        parameters: Parameters = (),
        **options: Any,
    ) -> str:
        """A guest with one interface starts; its XML."""
        xml = guest_xml(guest, tap, filter_name, parameters, **options)
        self.event(guest, "start", xml).fine()
        return xml

    def stop(self, guest: str = GUEST) -> None:
        """It has stopped; libvirt no longer knows its tap's name."""
        self.event(guest, "stopped", guest_xml(guest, None)).fine()

    def running(self, guest: str = GUEST, tap: str = TAP, filter_name: str = FILTER) -> str:
        """
        A guest that runs beside the bystander, in a sandbox in which nothing else has happened yet; its XML.

        The same as `start`, but what the hook does is done once and then copied.
        """
        key = (guest, tap, filter_name)
        if key in _running:
            self.load(_running[key])
        else:
            xml = self.start(*key)
            scripts = self.script_of(BYSTANDER, guest_xml(BYSTANDER, BYSTANDER_TAP)) + self.script_of(guest, xml)
            _running[key] = Snapshot(scripts, self.save().files)
        return guest_xml(*key)

    # hooks as processes

    def environment(self) -> dict[str, str]:
        """The environment that libvirt gives to a hook, and our configuration file."""
        return {**ENVIRONMENT, CONFIG_VARIABLE: str(self.conf)}

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
        return Ran(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="surrogateescape"))

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
        self.check_answer(ran)
        return ran

    def check_answer(self, ran: Ran) -> None:
        """What is true of every hook, whatever it was given."""
        assert ran.out == ""
        for line in ran.lines:
            assert line.startswith("nwfilter-hook: "), ran
            assert line.isprintable(), ran
        self.check_bystander()

    # files

    def place(self, name: str, xml: str) -> Path:
        """A filter file put into the local directory by somebody else than us."""
        self.filters.mkdir(exist_ok=True)
        path = self.filters / f"{name}.xml"
        path.write_text(xml)
        return path

    def write_filter(self, name: str, *lines: str, attributes: str = "") -> Path:
        """The same of a filter as `filter_xml` makes it."""
        return self.place(name, filter_xml(name, *lines, attributes=attributes))

    def names(self, **wanted: object) -> list[str]:
        """Names in `list --json` whose entries have these values."""
        listed = self.cli("list", "--json").json
        return [each["name"] for each in listed if all(each[key] == value for key, value in wanted.items())]

    def files(self, *tops: Path) -> dict[str, str]:
        """What library and state directory hold, or `tops`, but what is the host's: path to content or target."""
        return {
            str(path.relative_to(tops[0] if tops else self.directory)): f"link to {os.readlink(path)}"
            if path.is_symlink()
            else path.read_text(errors="surrogateescape")
            for top in tops or (self.filters, self.state_dir)
            for path in (sorted(top.rglob("*")) if top.is_dir() else ())
            if path.is_symlink() or (path.is_file() and path.name not in OF_THE_HOST)
        }

    def record_path(self, guest: str = GUEST) -> Path:
        """Where the guest's record is."""
        return self.state_dir / "domains" / f"{uuid_of(guest)}.json"

    def record(self, guest: str = GUEST) -> dict[str, Any]:
        """The guest's record."""
        found: dict[str, Any] = json.loads(self.record_path(guest).read_text())
        return found

    def record_of_tap(self, tap: str) -> dict[str, Any]:
        """The record of the guest, or the binding, that owns a tap."""
        uuid = (self.state_dir / "taps" / tap).read_text()
        found: dict[str, Any] = json.loads((self.state_dir / "domains" / f"{uuid}.json").read_text())
        return found

    # the kernel

    def run(self, *command: str | Path, stdin: str = "") -> str:
        """What `command` prints when it is run in the sandbox's namespace; it must succeed."""
        return self.wire.run(*command, stdin=stdin).stdout

    def nft(self, *arguments: str) -> str:
        """What the real nft prints."""
        return self.run("nft", *arguments)

    def nft_script(self, text: str) -> None:
        """Carry out a transaction of somebody else's."""
        self.run("nft", "-f", "-", stdin=text)

    def plug(self, *taps: str) -> None:
        """Make devices of these names, up, in no bridge."""
        self.wire.plug(*taps, bridge=None)

    def kernel(self, tap: str | None = None, *, exact: bool = False) -> list[str]:
        """
        What nft lists, an object a line, sorted by name; the rules of a chain in their order.

        Args:
            tap: only what belongs to it: chains, rules, sets, map elements; none of another tap's.
            exact: with handles, so that a rule that was replaced by an equal one shows, and counters; else without.
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

    def rules(self) -> str:
        """What belongs to taps, as nft writes it, without handles: chains, sets, map elements; sorted."""
        found = []
        for block in re.split(r"\n(?=\t(?:chain|map|set) |}|table )", self.wire.ruleset()):
            kind, name = [*block.split(), "", ""][:2]
            if kind == "map":
                found += [f"{name}: {element}" for element in re.findall(r'"[^"]+" : \w+ [^,\s}]+', block)]
            elif kind in ("chain", "set") and "/" in name:
                found.append(block.strip())
        return "\n".join(sorted(found))

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

    # what must hold

    def watch_bystander(self) -> None:
        """It runs here: from now on it must stay as it is."""
        self._bystander = self._seen_of_bystander()
        assert self._bystander[0], "the bystander has no rules"
        assert len(self._bystander[1]) == 2, "the bystander has a record and owns its tap"

    def _seen_of_bystander(self) -> tuple[list[str], dict[str, str]]:
        return self.kernel(BYSTANDER_TAP, exact=True), self._files_of(BYSTANDER)

    def _files_of(self, guest: str) -> dict[str, str]:
        uuid = uuid_of(guest)
        return {path: text for path, text in self.files().items() if uuid in path or text == uuid}

    def forget_bystander(self) -> None:
        """It is going to change or to be out of sight, on purpose."""
        self._bystander = None

    def check_bystander(self) -> None:
        """The bystander's chains, rules, sets, map elements, record and tap are what they were, handles too."""
        if self._bystander is not None:
            assert self._seen_of_bystander() == self._bystander

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """What happens meanwhile changes no rule, not even its handle, and no byte of a file."""
        before = self.kernel(exact=True) if self._wire else [], self.files()
        yield
        assert (self.kernel(exact=True) if self._wire else [], self.files()) == before

    def assert_nothing_left(self, guest: str = GUEST, *taps: str) -> None:
        """Neither kernel nor state directory knows the guest or its taps."""
        self.assert_nothing_left_of_tap(*(taps or (TAP,)))
        assert self._files_of(guest) == {}
        self.check_tidy()

    def assert_nothing_left_of_tap(self, *taps: str) -> None:
        """Neither kernel nor state directory knows the taps."""
        listing = self.by_tap()
        for tap in taps:
            assert listing.get(tap, []) == []
            assert not (self.state_dir / "taps" / tap).exists()

    def check_tidy(self) -> None:
        """Nothing half-done lies about: there are filters, records, owners of taps in these, and the guard."""
        paths = [Path(path) for path in self.files()]
        records = [path for path in paths if path.parent.name == "domains" and path.suffix == ".json"]
        owned = {
            binding["tap"]
            for path in records
            for binding in json.loads((self.directory / path).read_text())["bindings"]
        }
        taps = [path for path in paths if path.parent.name == "taps" and path.name in owned]
        filters = [path for path in paths if path.parent.name == "filters" and path.suffix == ".xml"]
        guard = [path for path in paths if path == Path("state/guard")]
        assert set(paths) == {*records, *taps, *filters, *guard}

    def check(self) -> None:
        """Files, records and kernel say the same, and nothing half-done lies about."""
        self.check_tidy()
        with self.inside():
            host = self.host()
            records = host.state.records()
            assert plan_update(host, lambda binding: True).changes == (), "rules are not what the files say"
            assert find_differences(host) == [], "the kernel hasn't what the records say"
        bindings = [binding for record in records for binding in record.bindings]
        recorded = {chain for binding in bindings for chain in binding.installed.names("chain")}
        assert set(re.findall(r"^\tchain (\S+/\S+) \{", self.wire.ruleset(), re.MULTILINE)) == recorded
        owned = {path.name for path in (self.state_dir / "taps").glob("*")}
        assert owned == {binding.tap for binding in bindings}

    # snapshots

    def script_of(self, guest: str, xml: str) -> str:
        """The transaction of a guest's start."""
        return self.cli("replay", guest, "start", "--xml", "-", "--dry-run", stdin=xml).out

    def save(self) -> Snapshot:
        """
        All there is, to be loaded later; but where nft has a short form for the beginning of a rule (`ip saddr` for
        `ether type ip ip saddr`), that is what is loaded, and it isn't quite the same.
        """
        files = {path: (self.state_dir / path).read_bytes() for path in self.files(self.state_dir)}
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
    """JSON without the time after which elements go, and unless `exact` without handles and what was counted."""
    if isinstance(value, dict):
        if not exact:
            value = {key: None if key == "counter" else each for key, each in value.items() if key != "handle"}
        return {key: _plain(each, exact) for key, each in value.items() if key != "expires"}
    return [_plain(each, exact) for each in value] if isinstance(value, list) else value
