"""
A host of the tests' own: configuration, a directory of local filters before the stock ones, a state directory, and if a
`Wire` is given a kernel to filter in. Commands run in this process, as `nwfilter-hook` would run them.

In:  arguments of the command line, libvirt events.
Out: a `Ran` for each command; what the kernel, the records and the filter files hold, as values that compare.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
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

STOCK = REPOSITORY / "filters"
HANDLE = re.compile(r" # handle \d+")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    def fine(self) -> Ran:
        """It did its work, without a word on stderr."""
        assert (self.status, self.err) == (0, ""), self
        return self

    def refused(self, *words: str) -> str:
        """Exit status 1, nothing on stdout, and one line of ours with `words` in it. Returns the line."""
        assert (self.status, self.out) == (1, ""), self
        (line,) = self.err.splitlines()
        assert line.startswith("nwfilter-hook: "), self
        assert line.isprintable(), self
        for word in words:
            assert word in line, (word, line)
        return line

    @property
    def json(self) -> Any:
        """What it printed for programs."""
        return json.loads(self.out)


class _Stdin(io.TextIOWrapper):
    """Standard input from a pipe, or from a terminal at which somebody types."""

    def __init__(self, data: bytes, terminal: bool) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class Site:
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
        self.wire = wire
        self._inside = False
        self.configure()

    def configure(self, text: str = "", *, filter_dirs: Sequence[Path | str] | None = None, **nftables: object) -> None:
        """Write the configuration file; `nftables` are keys of that section, `text` is further lines."""
        directories = filter_dirs or (self.filters, STOCK)
        lines = [
            "[paths]",
            f"state_dir = {self.state_dir}",
            f"filter_dirs = {':'.join(map(str, directories))}",
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
        """This process is on this host meanwhile: its configuration, its network."""
        with contextlib.ExitStack() as stack:
            if self.wire and not self._inside:
                stack.enter_context(self.wire.inside())
                stack.enter_context(mock.patch.object(self, "_inside", True))
            stack.enter_context(mock.patch.dict(os.environ, {CONFIG_VARIABLE: str(self.conf)}))
            yield

    # commands and events

    def cli(self, *arguments: str | Path, stdin: str | bytes = "", terminal: bool = False) -> Ran:
        """Run `nwfilter-hook ARGUMENTS`."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        status = 0
        with (
            self.inside(),
            mock.patch.multiple(
                sys,
                argv=["nwfilter-hook", *map(str, arguments)],
                stdin=_Stdin(data, terminal),
                stdout=out,
                stderr=err,
            ),
        ):
            try:
                cli.main()
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        texts = [stream.buffer.getvalue().decode() for stream in (out, err) if isinstance(stream.buffer, io.BytesIO)]
        return Ran(status, *texts)

    def define(self, xml: str, *options: str) -> Ran:
        """`define -`."""
        return self.cli("define", "-", *options, stdin=xml)

    def event(self, guest: str, operation: str, xml: str) -> int:
        """What hooks/qemu does; its exit status."""
        with self.inside():
            return hook.run(guest, operation, xml.encode())

    def start(self, guest: str, tap: str, filter_name: str, parameters: Parameters = (), **options: Any) -> None:
        """A guest with one interface starts."""
        xml = domain(guest, [interface(tap, filter_name, parameters, **options)])
        assert self.event(guest, "start", xml) == 0

    def stop(self, guest: str) -> None:
        """It has stopped; libvirt no longer knows its tap's name."""
        assert self.event(guest, "stopped", domain(guest, [interface(None, "clean-traffic")])) == 0

    def host(self) -> Host:
        """The package's own view of this host; the configuration is read now."""
        with self.inside():
            return open_host(read_config(), lambda line: None)

    # files

    def place(self, name: str, xml: str) -> Path:
        """A filter file put into the local directory by somebody else than us."""
        self.filters.mkdir(exist_ok=True)
        path = self.filters / f"{name}.xml"
        path.write_text(xml)
        return path

    def names(self, **wanted: object) -> list[str]:
        """Names in `list --json` whose entries have these values."""
        listed = self.cli("list", "--json").json
        return [each["name"] for each in listed if all(each[key] == value for key, value in wanted.items())]

    def files(self) -> dict[str, bytes]:
        """Every file of library and state by path, but the lock and what was found out about kernel and nft."""
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for top in (self.filters, self.state_dir)
            for path in sorted(top.rglob("*"))
            if path.is_file() and path.name not in ("lock", "capabilities.json")
        }

    def record(self, guest: str) -> dict[str, Any]:
        """What the state directory says about a guest."""
        found: dict[str, Any] = json.loads((self.state_dir / "domains" / f"{uuid_of(guest)}.json").read_text())
        return found

    def record_of_tap(self, tap: str) -> dict[str, Any]:
        """The record of the guest, or the binding, that owns a tap."""
        uuid = (self.state_dir / "taps" / tap).read_text()
        found: dict[str, Any] = json.loads((self.state_dir / "domains" / f"{uuid}.json").read_text())
        return found

    # the kernel

    def listing(self) -> str:
        """Everything in nftables with its handles, without what is counted or learned."""
        assert self.wire
        return self.wire.nft("--stateless", "--terse", "--handle", "list", "ruleset")

    def rules(self) -> str:
        """What belongs to taps, without handles: chains, sets, map elements; whichever came first."""
        found = []
        for block in re.split(r"\n(?=\t(?:chain|map|set) |}|table )", HANDLE.sub("", self.listing())):
            kind, name = [*block.split(), "", ""][:2]
            if kind == "map":
                found += [f"{name}: {element}" for element in re.findall(r'"[^"]+" : \w+ [^,\s}]+', block)]
            elif kind in ("chain", "set") and "/" in name:
                found.append(block.strip())
        return "\n".join(sorted(found))

    # what must hold

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """What happens meanwhile changes no rule, not even its handle, and no byte of a file."""
        before = self.listing() if self.wire else "", self.files()
        yield
        assert (self.listing() if self.wire else "", self.files()) == before

    def check_tidy(self) -> None:
        """Nothing half-done lies about."""
        unfinished = (".pending", ".tmp", ".journal", ".leftover", ".new")
        assert [name for name in self.files() if name.endswith(unfinished) or "unreadable" in name] == []

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
        listed = set(re.findall(r"^\tchain (\S+/\S+) \{", self.listing(), re.MULTILINE))
        assert listed == recorded
        owned = {path.name for path in (self.state_dir / "taps").glob("*")}
        assert owned == {binding.tap for binding in bindings}


def filter_xml(name: str, *lines: str, uuid: str = "", attributes: str = "") -> str:
    """A filter; its `lines` begin at line 2."""
    uuid_line = f"  <uuid>{uuid}</uuid>\n" if uuid else ""
    body = "".join(f"  {line}\n" for line in lines)
    return f"<filter name='{name}' {attributes}>\n{body}{uuid_line}</filter>\n"


def normal_form(data: bytes, path: str, uuid: str | None = None) -> str:
    """The filter in `data`, in normal form, with `uuid` if it has none."""
    parsed = parse_filter(data, path)
    return format_filter(replace(parsed, uuid=parsed.uuid or uuid))


def reference(name: str, **parameters: str) -> str:
    """A <filterref>."""
    inner = "".join(f"<parameter name='{key}' value='{value}'/>" for key, value in parameters.items())
    return f"<filterref filter='{name}'>{inner}</filterref>"


def drop_udp(port: int | str, direction: str = "out") -> str:
    """A rule that drops UDP to a port; on layer 2, so that every kernel can do it."""
    return f"<rule action='drop' direction='{direction}'><ip protocol='udp' dstportstart='{port}'/></rule>"
