"""What a shell offers at Tab: commands, and names of this host as they are at that moment."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.host import Sandbox
from tests.support.netns import REPOSITORY, command_line

pytestmark = pytest.mark.netns

LINES = [
    ("sho", ["show"]),
    ("trace ", ["vnet0", "vnet1"]),
    ("trace vnet1", ["vnet1"]),
    ("show w", ["web"]),
    ("show ", ["vnet0", "vnet1", "db", "web"]),
    ("replay d", ["db"]),
    ("replay db sto", ["stopped"]),
    ("digest ", ["db", "web"]),
    ("dumpxml min", ["mine"]),
    ("tree mi", ["mine"]),
    ("compile --filter min", ["mine"]),
    ("compile --filter mine -p ", ["IP=", "PORT="]),
    ("explain --filter mine -p P", ["PORT="]),
    ("tree clean-traffic -p ", ["IP="]),
    ("set list ", ["friends"]),
    ("trace no", []),
    ("dumpxml no-such", []),
]
MINE = (
    "<filterref filter='no-mac-spoofing'/>",
    "<rule action='accept' direction='out'><tcp srcipaddr='$IP' dstportstart='$PORT'/></rule>",
    "<rule action='accept' direction='out'><tcp ipset='friends' ipsetflags='src'/></rule>",
)


def asked(site: Sandbox, variables: dict[str, str], *command: str) -> list[str]:
    """What a command prints, by words, with these environment variables."""
    with site.inside():
        done = subprocess.run(
            command, env={**site.environment(), **variables}, capture_output=True, text=True, check=False
        )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def lived(site: Sandbox) -> Sandbox:
    """A host with two guests, and a filter of its own."""
    site.write_filter("mine", *MINE)
    site.start("web", "vnet0", "no-mac-spoofing")
    site.start("db", "vnet1", "no-mac-spoofing", mac="52:54:00:00:00:09")
    return site


@pytest.mark.parametrize(("line", "offered"), LINES, ids=lambda each: each if isinstance(each, str) else "")
def test_bash(lived: Sandbox, tmp_path: Path, line: str, offered: list[str]) -> None:
    """As bash asks, with the file that is installed."""
    command = tmp_path / "nwfilter-hook"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(command_line(REPOSITORY))} "$@"\n')
    command.chmod(0o755)
    words = ["nwfilter-hook", *line.split(" ")]
    script = f"""
        PATH={tmp_path}:$PATH
        compopt() {{ :; }}
        . {REPOSITORY}/packaging/completion/nwfilter-hook.bash
        COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}
        $(complete -p nwfilter-hook | sed 's/.*-F \\([^ ]*\\) .*/\\1/') nwfilter-hook {shlex.join(words[-1:])}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert asked(lived, {}, "bash", "-c", script) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_others(lived: Sandbox, shell: str) -> None:
    """What click says to zsh and fish."""
    variables = {"_NWFILTER_HOOK_COMPLETE": f"{shell}_complete", "COMP_WORDS": "nwfilter-hook trace vnet"}
    variables["COMP_CWORD"] = "vnet" if shell == "fish" else "2"
    said = asked(lived, variables, *command_line(REPOSITORY))
    assert [name in "\n".join(said) for name in ("vnet0", "vnet1", "web")] == [True, True, False]
