"""
The same on Debian 13: its nft and its Python, in a root of its own beside this system.

The demo is the README's first command on a fresh machine. Then the tests that depend on nft or Python run in there,
three processes at once. What this system's nft and that one make of our scripts is compared in the kernel.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

import pytest

from nwfilter_hook.base.addresses import parse_mac
from nwfilter_hook.compiler.compile import compile_tap
from nwfilter_hook.filters.learning import read_learning
from nwfilter_hook.filters.resolve import resolve
from nwfilter_hook.ruleset.model import Attachment
from nwfilter_hook.storage.library import Library
from tests.golden.test_golden import CASES
from tests.support.debian_root import DebianRoot, debian_root
from tests.support.domains import domain, interface
from tests.support.frames import ipv4
from tests.support.language import every_row
from tests.support.netns import REPOSITORY, Wire
from tests.unit.compiling import MAC, TAP, Values, compiled, reference_to, script

RELEASE = "trixie"
TREE = "/srv/nwfilter-hook"
TIMEOUT_S = 1500
# make demo has installed what the product needs
PREPARE = """
apt-get install -y -qq --no-install-recommends busybox-static dnsmasq-base file git kmod openvswitch-switch procps \
    systemd
.venv/bin/pip install --quiet docutils hypothesis prometheus-client pytest pytest-timeout pyyaml
"""
# what is about our own processes, files and locks, whatever nft is
OURS = (
    *("bad_input", "bounds", "concurrency", "configuration", "domain_xml", "killed", "nft_faults", "no_gap"),
    *("prometheus", "records", "state_dir", "tap_reuse"),
)
# frames meet the same programs, as the last test of this file shows; what nft lists and changes is another's
LISTING = ("address_sets", "devices", "dhcp", "guest_life", "ip_learning_sets", "reconnect", "segments")
# by name, the paths that one process runs
SUITES = {
    "unit-golden": ("tests/unit", "tests/golden", "--ignore=tests/unit/test_lint.py"),
    "host": ("tests/host", *(f"--ignore=tests/host/test_{name}.py" for name in OURS)),
    "wire": tuple(f"tests/wire/test_{name}.py" for name in LISTING),
}

pytestmark = [pytest.mark.debian13, pytest.mark.timeout(TIMEOUT_S + 100)]


@pytest.fixture(scope="module")
def bare() -> DebianRoot:
    """Debian 13 with this source tree in it, and nothing made of it."""
    if os.geteuid() != 0:
        pytest.skip("a root directory of another release needs root")
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is missing: apt-get install debootstrap")
    root = debian_root(RELEASE)
    root.copy(REPOSITORY, TREE)
    return root


@pytest.fixture(scope="module")
def demo(bare: DebianRoot) -> str:
    """What `make demo` printed there; it must have succeeded."""
    return _run(bare, "make", "demo")


@pytest.fixture(scope="module")
def running(bare: DebianRoot, demo: str) -> Iterator[Mapping[str, Popen[str]]]:
    """The test processes, by name, all of them at work."""
    _run(bare, "sh", "-euc", PREPARE)
    started = {}
    for name, arguments in SUITES.items():
        command = [".venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        started[name] = Popen(
            bare.entering(TREE, *command),
            env={**bare.environment(), "CI": "1"},
            stdin=subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            text=True,
            errors="replace",
        )
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


def _run(root: DebianRoot, *command: str) -> str:
    done = subprocess.run(
        root.entering(TREE, *command),
        env=root.environment(),
        stdin=subprocess.DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        text=True,
        errors="replace",
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def test_the_demo(demo: str) -> None:
    """`make demo` installs what it needs and ends well."""
    assert "All is well" in demo


def test_it_is_another_nft(bare: DebianRoot, demo: str) -> None:
    """What is tried here is Debian 13's nft and Python."""
    assert "nftables v1.1.3" in _run(bare, "nft", "--version")
    assert "Python 3.13" in _run(bare, ".venv/bin/python", "--version")


@pytest.mark.parametrize("name", SUITES)
def test_what_starts_nft_or_a_hook(running: Mapping[str, Popen[str]], name: str) -> None:
    """Every one of these tests passes there, none is skipped."""
    output, _ = running[name].communicate(timeout=TIMEOUT_S)
    assert running[name].returncode == 0, output[-20000:]
    assert re.search(r"\d+ passed", output)


_AS_NFT = """#!/bin/sh
exec unshare --mount sh -euc '
    mount --rbind /dev "$0/dev"; mount -t proc proc "$0/proc"; exec chroot "$0" nft "$@"' {root} "$@"
"""


def test_nft_is_upgraded_while_a_guest_runs(bare: DebianRoot, demo: str, able: None, tmp_path: Path) -> None:
    """What this system's nft has installed, the newer one repairs and removes; what was learned stays."""
    xml = domain("web", [interface("vnet0", "clean-traffic-dual", [("CTRL_IPV6_LEARNING", "any")])])
    newer = tmp_path / "nft"
    newer.write_text(_AS_NFT.format(root=bare.path))
    newer.chmod(0o755)
    with Wire() as wire:
        wire.start("web", xml)
        assert wire.passes(ipv4(src_ip="10.0.5.5"))
        wire.configure(f"[nftables]\nnft = {newer}\n")
        assert "nftables v1.1.3" in wire.run(newer, "--version").stdout
        for damage in ("flush chain bridge nwfilter from/vnet0", "delete table bridge nwfilter"):
            wire.run(newer, *damage.split())
            repaired = wire.hook("web", "reconnect", xml)
            assert (repaired.returncode, repaired.stdout) == (0, "")
            assert "repaired" in repaired.stderr
            assert wire.passes(ipv4(src_ip="10.0.5.5"))
            assert not wire.passes(ipv4(src_ip="10.0.5.6"))
        wire.stop("web", xml)
        assert "vnet0" not in wire.run(newer, "list", "ruleset").stdout


# --- programs ---------------------------------------------------------------------------------------------------------

LEARNING: tuple[dict[str, Values], ...] = (
    {"CTRL_IPV6_LEARNING": "any"},
    {"CTRL_IP_LEARNING": "dhcp", "CTRL_IPV6_LEARNING": "any"},
    {"CTRL_IP_LEARNING_MAX": "3", "CTRL_IPV6_LEARNING": "any"},
    {"IP": ("192.0.2.1", "192.0.2.2"), "IPV6": "2001:db8::1"},
)


GIVEN: dict[str, Values] = {"GATEWAY_MAC": MAC, "VLAN": ("7", "8"), "TAGGED": "any"}


def every_script() -> Iterator[tuple[str, str]]:
    """Scripts with all that can be in one: golden, every attribute, every stock filter with every way of learning."""
    for case in CASES:
        if (case / "expected.nft").exists():
            yield case.name, (case / "expected.nft").read_text()
    yield "every-attribute", script(compiled(every_row(connections=True)))
    library = Library([str(REPOSITORY / "filters")])
    for path in sorted((REPOSITORY / "filters").glob("*.xml")):
        for number, parameters in enumerate(LEARNING):
            server = "2001:db8::2" if "dhcpv6" in path.stem else "192.0.2.9"
            reference = reference_to(path.stem, {**GIVEN, "DHCPSERVER": server, **parameters})
            if "dhcpv6" in path.stem and number == 1:
                continue  # its server can't be one of DHCP
            rules = resolve(reference, MAC, library.read)
            ruleset = compile_tap(TAP, Attachment.BRIDGE_PORT, parse_mac(MAC), rules, read_learning(reference))
            yield f"{path.stem}-{number}", script(ruleset)


def test_both_nft_make_the_same_programs(bare: DebianRoot, demo: str, tmp_path: Path) -> None:
    """
    What this system's nft makes of a script in the kernel is what that of Debian 13 makes of it, rule by rule.

    The same nft lists both: the newer, since nft 1.0.6 dies of what a newer one has stored beside a set.
    """
    scripts = dict(every_script())
    assert len(scripts) > 100
    differing = {}
    for name, text in scripts.items():
        here, there = (_programs(bare, text, tmp_path / "script", chrooted=chrooted) for chrooted in (False, True))
        assert "[ " in here or " rule " not in text, name
        if here != there:
            differing[name] = (here, there)
    assert differing == {}


_LIST = """
set -eu
root=$1 nft=$2 script=$3; shift 3
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for device; do ip link add "$device" type bridge; done
case $nft in here) nft -f - ;; there) chroot "$root" nft -f - ;; esac < "$script"
for table in $(chroot "$root" nft list tables | sed 's/^table //; s/ /:/'); do
    chroot "$root" nft --debug=netlink list table ${table%:*} ${table#*:}
done
"""


def _programs(root: DebianRoot, text: str, path: Path, *, chrooted: bool) -> str:
    """
    The listing, as the kernel's programs, of what `text` puts into a new network namespace.

    Where the rules look at connections or reject, the family is inet: not every kernel can do that in a bridge.
    """
    if re.search(r" (?:ct|reject) ", text):
        text = text.replace(" bridge ", " inet ")
    path.write_text(text)
    devices = sorted(set(re.findall(r'device "([^"]+)"', text)))
    done = subprocess.run(
        [
            "unshare",
            "--net",
            "--mount",
            "sh",
            "-c",
            _LIST,
            "sh",
            str(root.path),
            "there" if chrooted else "here",
            path,
            *devices,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # elements come in any order, and some with their age
    listing = re.sub(r"(?m)^\telement .*$\n", "", done.stdout)
    return re.sub(r"(?s)elements = \{.*?\}", "", listing)
