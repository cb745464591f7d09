"""
What nft and this kernel say of a script, without doing it: `nft --check` in a network namespace of its own.

Where the kernel lacks connection tracking or reject in the bridge family, it refuses the rules that need them, and
these only: `complaints` leaves those refusals out, for exactly the rules that have `ct` or `reject` in them.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable

import pytest

_COMPLAINT = re.compile(r"^/dev/stdin:(\d+):\d+-\d+: Error: (.*)$", re.MULTILINE)
_PROBE = """add table bridge probe
add chain bridge probe c {{ type filter hook prerouting priority 0; }}
add rule bridge probe c {}
"""
# the words of a rule that need a feature, and the rule that asks the kernel for it
_FEATURES = {"ct": "ct state new", "reject": "reject"}


def complaints(text: str, devices: Iterable[str] = ()) -> list[str]:
    """
    What `nft --check` says against `text`: "MESSAGE: LINE OF THE SCRIPT" each; skips where nft can't be asked.

    Args:
        devices: names of network devices that must be there, for chains of the netdev family.
    """
    found = _run(text, devices)
    lines = text.splitlines()
    lacking = _lacking()
    result = []
    for number, message in found:
        line = lines[number - 1] if number else ""
        if not any(_is_refusal_of(feature, message, line, refusal) for feature, refusal in lacking.items()):
            result.append(f"{message}: {line}")
    return result


def complaints_about_listing(text: str, devices: Iterable[str] = ()) -> str:
    """
    What nft says when it is given its own listing of what `text` has put into the kernel; "" if it takes it.

    Rules that this kernel lacks the feature for are left out.
    """
    lacking = [f" {feature} " for feature in _lacking()]
    lines = [line for line in text.splitlines(keepends=True) if not any(words in line for words in lacking)]
    again = 'nft --file - && listing=$(nft list ruleset) && nft flush ruleset && echo "$listing" | nft --file -'
    done = _in_a_namespace(again, "".join(lines), devices)
    return done.stderr if done.returncode else ""


def _is_refusal_of(feature: str, message: str, line: str, refusal: str) -> bool:
    return message == refusal and re.search(rf" {feature} ", line) is not None


@functools.cache
def _lacking() -> dict[str, str]:
    """The features that this kernel lacks, each with its words of refusal."""
    refusals = {feature: _run(_PROBE.format(statement), ()) for feature, statement in _FEATURES.items()}
    return {feature: found[0][1] for feature, found in refusals.items() if found}


def _run(text: str, devices: Iterable[str]) -> list[tuple[int, str]]:
    """(line of the script, message) for each complaint; line 0 where nft names none."""
    done = _in_a_namespace("exec nft --check --file -", text, devices)
    found = [(int(line), message) for line, message in _COMPLAINT.findall(done.stderr)]
    if done.returncode and not found:
        return [(0, done.stderr.strip())]
    return found


def _in_a_namespace(command: str, text: str, devices: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run the shell's `command` with `text` on standard input where nothing is but `devices`."""
    for program in ("nft", "ip", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install nftables iproute2 util-linux")
    if os.geteuid() != 0:
        pytest.skip("nft --check needs root")
    devices_first = 'for device; do ip link add "$device" type bridge || exit 99; done; '
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", devices_first + command, "sh", *devices],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, LC_ALL="C"),
    )
    if done.returncode == 99:
        pytest.skip(f"no device to hang a chain on: {done.stderr.strip()}")
    return done
