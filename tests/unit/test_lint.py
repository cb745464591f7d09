"""ruff, mypy and pandoc have nothing to say about package, tests, hook script, manual; see ruff.toml and setup.cfg."""

from __future__ import annotations

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


@pytest.mark.parametrize("name", COMMANDS)
def test_has_nothing_to_say(name: str) -> None:
    """The command ends with status 0; what it says otherwise is the failure."""
    program, *arguments = COMMANDS[name]
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if f"No module named {program}" in done.stderr:
        pytest.skip(f"{program} is missing: pip install --editable '.[test]'")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_formatter_sees_the_hook_script() -> None:
    """hooks/qemu has no .py in its name, so it is named to the tools."""
    settings = (REPOSITORY / "setup.cfg").read_text()
    assert "files = nwfilter_hook, tests, hooks/qemu" in settings
    assert all("hooks/qemu" in command for command in COMMANDS.values() if command[0] == "ruff")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "packaging/man").glob("*.md")), ids=lambda path: path.name)
def test_a_page_of_the_manual_is_rendered(path: Path) -> None:
    """As `make man` does it."""
    command = ["pandoc", "-s", "-f", "gfm+yaml_metadata_block", "-t", "man", str(path)]
    page = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    name, section = path.name.removesuffix(".md").rsplit(".", 1)
    assert f'.TH "{name.upper()}" "{section}"' in page
    assert ".SH NAME" in page
