"""
The nft process: the only module that starts one.

Everything goes in on standard input, nothing through a shell; a run is given up after a bounded time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..base.dataclass import dataclass
from ..base.errors import NftError
from .names import Objects, is_of_tap
from .script import TABLE, Script

_SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")
_LOCATION = re.compile(r"^(?:/dev/stdin|-):(\d+):\d+-\d+: (?:Error|error): (.*)$", re.MULTILINE)
_COUNTED = re.compile(r"counter packets \d+ bytes \d+")
_COMMENT = re.compile(r'(\S+)(?:(?<=reject) with [\w -]+)? comment "([^"]*)"$')
_SHOW_PROGRAMS = "--debug=netlink"
_PROGRAM_OF = re.compile(rf"(bridge|netdev) {TABLE} ([^@\s]\S*)(?: \d+)*\s*")
# counts, and flags that only the kernel spells out
_NOT_PROGRAM = re.compile(r"(\[ counter) pkts \d+ bytes \d+|(\[ dynset .*) timeout 0ms|(\[ lookup .*) 0x0(?= \]$)")
_EXISTS = "File exists"
_UNSUPPORTED = "Operation not supported"
_DEVICE_CHAIN = re.compile(rf"^add (chain netdev {TABLE} \S+) {{ type filter hook .*$", re.MULTILINE)
_ELEMENT = re.compile(rf'add element bridge {TABLE} (\S+) {{ "([^"]+)" : jump (\S+) }}')
MISSING_CT = "CONFIG_NF_CONNTRACK_BRIDGE (module nf_conntrack_bridge)"
MISSING_REJECT = "CONFIG_NFT_BRIDGE_REJECT (module nft_reject_bridge)"


@dataclass(frozen=True)
class Listing:
    """
    The rules of a chain in the kernel.

    Attributes:
        fingerprint: as `fingerprint_of` has them.
        programs: what the kernel runs for each rule, in libnftnl's notation; comments and counts are not in it.
    """

    fingerprint: tuple[str, ...]
    programs: tuple[str, ...]


class Nft:
    """
    nft on this host.

    Args:
        program: a path, or a name to look up in PATH and the sbin directories.
        timeout_s: after which a run is given up.
        inherited: gives the descriptors that nft is to hold open: the lock's, so that an nft that outlives a killed
            hook keeps everyone else waiting until it is through.
    """

    def __init__(self, program: str, timeout_s: float, inherited: Callable[[], tuple[int, ...]] = tuple) -> None:
        self._program = program
        self._timeout_s = timeout_s
        self._inherited = inherited

    def apply_script(self, script: Script) -> None:
        """
        Hand one transaction to the kernel.

        Raises:
            NftError: it was refused and nothing has changed; the message names the XML line that caused it. Or nft
                didn't answer in time: `.unsure` is set then.
        """
        result = self._run(["-f", "-"], script.text)
        again = self._making_room(script.text, result.stderr) if result.returncode > 0 else None
        if again is not None:
            second = self._run(["-f", "-"], again)
            # of two refusals the first is told: its lines are the script's
            result = result if second.returncode > 0 else second
        if result.returncode < 0:
            raise NftError(f"{self._program} was killed by signal {-result.returncode}", unsure=True)
        if result.returncode:
            raise NftError(_explain(script, result.stderr))

    def _making_room(self, text: str, complaint: str) -> str | None:
        """`text`, which first deletes what is in the way; None if it isn't that what nft complains about."""
        if _EXISTS in complaint:  # somebody gave one of our map elements another verdict
            return self._replacing_elements(text)
        if _UNSUPPORTED in complaint and _DEVICE_CHAIN.search(text):
            # a device of this name had another hook, and is gone; its chain isn't (seen on Linux 6.18)
            return _DEVICE_CHAIN.sub(r"add \1\nflush \1\ndelete \1\n\g<0>", text)
        return None

    def _replacing_elements(self, text: str) -> str:
        """`text`, which deletes those elements first that are in the kernel with another verdict."""
        known: dict[str, dict[str, str]] = {}
        lines = []
        for line in text.splitlines():
            match = _ELEMENT.fullmatch(line)
            if match:
                name, tap, target = match.groups()
                if name not in known:
                    known[name] = self.list_map(name)
                if known[name].pop(tap, target) != target:
                    lines.append(f'delete element bridge {TABLE} {name} {{ "{tap}" }}')
            lines.append(line)
        return "".join(line + "\n" for line in lines)

    def check_script(self, text: str) -> str | None:
        """
        None if nft and the kernel would take `text`, else nft's message.

        Raises:
            NftError: nft can't be started, was given up or was killed.
        """
        result = self._run(["--check", "-f", "-"], text)
        if result.returncode < 0:
            raise NftError(f"{self._program} was killed by signal {-result.returncode}", unsure=True)
        return None if result.returncode == 0 else result.stderr.strip()

    def version(self) -> str:
        """What `nft --version` prints."""
        return self._run(["--version"], "").stdout.strip()

    def list_chain(self, family: str, chain: str) -> Listing | None:
        """The rules in a chain; None if the chain isn't there."""
        result = self._run([_SHOW_PROGRAMS, "list", "chain", family, TABLE, chain], "")
        if result.returncode:
            return None
        programs, _, text = result.stdout.rpartition(f"table {family} {TABLE} {{\n")
        found = []
        for line in (line.strip() for line in text.splitlines()):
            if line and line != "}" and not line.startswith(("chain ", "type filter hook ")):
                found.append(_fingerprint(_COUNTED.sub("counter", line)))
        return Listing(tuple(found), _programs(programs).get((family, chain), ()))

    def programs_of(self, text: str) -> dict[tuple[str, str], tuple[str, ...]] | None:
        """
        By (family, chain) the programs that the kernel would get for the rules of a script, as `Listing` has them; None
        if it wouldn't take them.
        """
        result = self._run([_SHOW_PROGRAMS, "--check", "-f", "-"], text)
        return None if result.returncode else _programs(result.stdout)

    def list_map(self, name: str) -> dict[str, str]:
        """The elements of one of our verdict maps: interface to the chain it jumps to; {} if the map isn't there."""
        elements: dict[str, str] = {}
        try:
            for item in self._json(["list", "map", "bridge", TABLE, name]):
                for key, verdict in item.get("map", {}).get("elem", ()):
                    elements[str(key)] = str((verdict.get("jump") or {}).get("target", ""))
        except (ValueError, TypeError, AttributeError) as error:
            raise NftError(f"nft list map {name}: unreadable answer: {error}") from error
        return elements

    def list_objects(self, tap: str) -> list[Objects]:
        """What our tables hold under the exact name of `tap`."""
        found = []
        for family in ("bridge", "netdev"):
            names: dict[str, list[str]] = {"chain": [], "set": []}
            for item in self.list_table(family):
                for kind, listed in names.items():
                    name = str(item.get(kind, {}).get("name", ""))
                    if is_of_tap(kind, name, tap):
                        listed.append(name)
            if names["chain"] or names["set"]:
                chains = sorted(names["chain"], key=lambda name: name.count("/"))
                found.append(Objects(tap, family, tuple(chains), tuple(names["set"])))
        return found

    def list_table(self, family: str) -> list[Mapping[str, Any]]:
        """Everything in our table of `family` as nft's JSON objects; [] if there is none. libnftables-json(5)."""
        return self._json(["list", "table", family, TABLE])

    def _json(self, arguments: Sequence[str]) -> list[Mapping[str, Any]]:
        result = self._run(["-j", *arguments], "")
        if result.returncode:
            if "No such file or directory" in result.stderr:
                return []
            raise NftError(f"nft {' '.join(arguments)}: {result.stderr.strip()}")
        try:
            return [item for item in json.loads(result.stdout)["nftables"] if isinstance(item, dict)]
        except (ValueError, KeyError, TypeError) as error:
            raise NftError(f"nft {' '.join(arguments)}: unreadable answer: {error}") from error

    def _run(self, arguments: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ, LC_ALL="C")
        environment["PATH"] = os.pathsep.join([environment.get("PATH", ""), *_SBIN]).lstrip(os.pathsep)
        try:
            return subprocess.run(
                [self._program, *arguments],
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._timeout_s,
                env=environment,
                cwd="/",
                check=False,
                pass_fds=self._inherited(),
            )
        except subprocess.TimeoutExpired as error:
            message = f"{self._program} did not answer within {self._timeout_s:g} s and was given up"
            raise NftError(message, unsure=True) from error
        except OSError as error:
            hint = "install the package nftables, or set [nftables] nft"
            raise NftError(f"{self._program} can't be started: {error.strerror}; {hint}") from error


def _programs(debugging: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """What `nft --debug=netlink` shows: for a rule a line with family, table, chain, handles, and its program below."""
    found: dict[tuple[str, str], list[list[str]]] = {}
    program: list[str] = []
    for line in debugging.splitlines():
        head = _PROGRAM_OF.fullmatch(line)
        if head:
            program = []
            found.setdefault((head[1], head[2]), []).append(program)
        elif line.startswith("  ["):
            program.append(_NOT_PROGRAM.sub(r"\1\2\3", line.strip()))
        elif not line.startswith("  "):
            program = []
    return {chain: tuple(map("\n".join, programs)) for chain, programs in found.items()}


def fingerprint_of(statements: Iterable[str]) -> tuple[str, ...]:
    """
    What a chain must list that was filled with `statements`: for each rule its last word before the comment (the
    verdict) and the comment. nft spells matches in its own way, so they can't be compared as text.
    """
    return tuple(_fingerprint(statement) for statement in statements)


def _fingerprint(line: str) -> str:
    match = _COMMENT.search(line)
    return f"{match[1]} {match[2]}" if match else line


def _explain(script: Script, stderr: str) -> str:
    """nft's first complaint, with the filter and line whose rule it is about."""
    match = _LOCATION.search(stderr)
    if not match:
        lines = stderr.strip().splitlines()
        return f"nft refused the transaction: {lines[0] if lines else 'without a message'}"
    line, complaint = int(match[1]), match[2]
    statement = script.text.splitlines()[line - 1] if line <= script.text.count("\n") else ""
    if line in script.sources:
        name, source = script.sources[line]
        return f"{source}: filter {name!r}: nft refused this rule: {complaint}: {statement}"
    return f"nft refused the transaction: {complaint}: {statement}"
