"""`make demo` ends with commands that work, and the README's picture is of what it prints."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.netns import REPOSITORY

pytestmark = pytest.mark.netns


def words(path: Path) -> list[str]:
    """What is to be read in a picture."""
    texts = re.findall(r"<text[^>]*>(.*?)</text>", path.read_text(), re.DOTALL)
    return " ".join(html.unescape(text).replace("\xa0", " ") for text in texts).split()


def test_the_demo(tmp_path: Path) -> None:
    """It is drawn anew, and says the same; the first two commands print what they promise."""
    picture = tmp_path / "demo.svg"
    ran = subprocess.run(
        [sys.executable, REPOSITORY / "tests/demo.py", "--picture", picture],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    assert words(picture) == words(REPOSITORY / "packaging/demo.svg"), "make picture"
    assert "Every verdict is as expected." in " ".join(words(picture))
    assert "http" not in re.sub(r'xmlns="[^"]*"|<!--.*?-->', "", picture.read_text()), (
        "nothing is fetched from elsewhere"
    )
    commands = re.findall(r"(?m)^  (?!#)(\S.*)$", ran.stdout.partition("Three commands to go on with:")[2])
    assert len(commands) == 3
    assert commands[2] == "make install"
    for command, says in zip(commands, ('comment "clean-traffic:', ": filter clean-traffic, ")):
        words_ = [word.replace(".venv/bin/python", sys.executable) for word in command.split()]
        done = subprocess.run(words_, capture_output=True, text=True, check=True, cwd=REPOSITORY)
        assert says in done.stdout
    assert "](packaging/demo.svg)" in (REPOSITORY / "README.md").read_text()
