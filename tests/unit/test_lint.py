"""ruff, mypy, docutils have nothing to say about package, tests, hook script and manual; see ruff.toml, setup.cfg."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COMMANDS = {
    "ruff check": ["ruff", "check", ".", "hooks/qemu"],
    "ruff format": ["ruff", "format", "--check", ".", "hooks/qemu"],
    "mypy --strict": ["mypy", "--strict"],  # setup.cfg names the files
}


def said(program: str, *arguments: str | Path) -> str:
    """What the tool prints; the test fails if the tool does."""
    command = [sys.executable, "-m", program, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if f"No module named {program}" in done.stderr:
        pytest.skip(f"{program} is missing: pip install --editable '.[test]'")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_has_nothing_to_say(name: str) -> None:
    """The command ends with status 0; what it says otherwise is the failure."""
    said(*COMMANDS[name])


def test_the_formatter_sees_the_hook_script() -> None:
    """hooks/qemu has no .py in its name, so it is named to the tools."""
    settings = (REPOSITORY / "setup.cfg").read_text()
    assert "files = nwfilter_hook, tests, hooks/qemu" in settings
    assert all("hooks/qemu" in command for command in COMMANDS.values() if command[0] == "ruff")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "packaging/man").glob("*.rst")), ids=lambda path: path.name)
def test_a_page_of_the_manual_is_rendered(path: Path) -> None:
    """Without a word from docutils, to a page with its name and section and no mark left over; old docutils shout."""
    page = said("docutils", "--strict", "--writer=manpage", path)
    name, section = path.stem.rsplit(".", 1)
    assert re.search(rf'(?im)^\.TH "{name}" "?{section}"? ', page)
    assert re.search(rf"(?im)^\.SH Name\n{name} \\- ", page)
    assert not re.search(r"`|\\\(ga|\*\*\w", page)
