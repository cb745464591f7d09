"""
An nft without a kernel: it carries out our transactions on values, whole or not at all, and can be told to fail.

It is as strict as the kernel: what is deleted must be there, a chain that something jumps to can't be deleted, and a
jump needs its chain.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from nwfilter_hook.base.errors import NftError
from nwfilter_hook.nftables.process import Listing, Nft, fingerprint_of
from nwfilter_hook.nftables.script import Script

_ELEMENT = re.compile(r'(\S+) \{ "([^"]+)"(?: : jump (\S+))? \}')


class Kernel:
    """
    What the tables hold.

    Attributes:
        chains: (family, name) to the chain's rules.
        elements: (map, interface) to the chain it jumps to.
        sets: (family, name).
    """

    def __init__(self) -> None:
        self.chains: dict[tuple[str, str], list[str]] = {}
        self.elements: dict[tuple[str, str], str] = {}
        self.sets: set[tuple[str, str]] = set()

    def run(self, text: str) -> None:
        """Carry out a script; ValueError, with nothing settled, at what the kernel would refuse."""
        for line in text.splitlines():
            verb, what, family, _, *rest = line.split(" ", 4)
            self._run(verb, what, family, rest[0] if rest else "", line)
        jumps = set(self.elements.values())
        jumps |= {
            words[-1] for rules in self.chains.values() for rule in rules for words in re.findall(r"(jump) (\S+)", rule)
        }
        missing = jumps - {name for _, name in self.chains}
        if missing:
            raise ValueError(f"jump to what isn't there: {missing}")

    def _run(self, verb: str, what: str, family: str, rest: str, line: str) -> None:
        name = rest.split(" ")[0]
        if what == "chain" and verb == "add":
            self.chains.setdefault((family, name), [])
        elif what == "chain" and verb == "flush":
            self.chains[family, name] = []
        elif what == "rule":
            self.chains[family, name].append(rest.partition(" ")[2])
        elif what == "element" and "jump" not in rest and verb == "add":
            return  # pairs of equal octets
        elif what == "element":
            match = _ELEMENT.fullmatch(rest)
            assert match, line
            key = (match[1], match[2])
            if verb == "delete":
                del self.elements[key]
            elif self.elements.setdefault(key, match[3]) != match[3]:
                raise ValueError(f"an element never changes its verdict: {line}")
        elif verb == "delete" and what == "chain":
            users = [rule for (_, user), rules in self.chains.items() if user != name for rule in rules]
            if name in self.elements.values() or any(f"jump {name} " in f"{rule} " for rule in users):
                raise ValueError(f"busy: {line}")
            del self.chains[family, name]
        elif what == "set" and verb in ("add", "delete"):
            (self.sets.add if verb == "add" else self.sets.remove)((family, name))

    def taps(self) -> set[str]:
        """Every tap that anything in the tables is about."""
        chains = {name.split("/")[1] for _, name in self.chains if "/" in name}
        return chains | {tap for _, tap in self.elements} | {name.split("/")[1] for _, name in self.sets}


class FakeNft(Nft):
    """
    Attributes:
        scripts: what was carried out.
        fails: raised instead of carrying anything out, if set.
        takes_it_first: carry it out, then raise: as an nft that is given up may have done.
    """

    def __init__(self) -> None:
        super().__init__("/nonexistent/nft", 1.0)
        self.kernel = Kernel()
        self.scripts: list[str] = []
        self.fails: NftError | None = None
        self.takes_it_first = False

    def apply_script(self, script: Script) -> None:
        if self.fails and not self.takes_it_first:
            raise self.fails
        after = copy.deepcopy(self.kernel)
        after.run(script.text)
        self.kernel = after
        self.scripts.append(script.text)
        if self.fails:
            raise self.fails

    def check_script(self, text: str) -> str | None:
        return None

    def version(self) -> str:
        return "nftables v1.0.6"

    def list_chain(self, family: str, chain: str) -> Listing | None:
        found = self.kernel.chains.get((family, chain))
        return None if found is None else Listing(fingerprint_of(found), tuple(found))

    def programs_of(self, text: str) -> dict[tuple[str, str], tuple[str, ...]]:
        found: dict[tuple[str, str], list[str]] = {}
        for family, chain, rule in re.findall(r"(?m)^add rule (\S+) \S+ (\S+) (.*)$", text):
            found.setdefault((family, chain), []).append(rule)
        return {key: tuple(rules) for key, rules in found.items()}

    def list_map(self, name: str) -> dict[str, str]:
        return {tap: chain for (map_, tap), chain in self.kernel.elements.items() if map_ == name}

    def list_table(self, family: str) -> list[Mapping[str, Any]]:
        return [{"chain": {"name": name}} for each, name in self.kernel.chains if each == family]
