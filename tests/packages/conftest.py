"""A source tree in which all is committed, and the packages that are built from it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.netns import REPOSITORY

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_GLOBAL": os.devnull,
}
NOT_COPIED = (".git", ".venv", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "build", "dist")


def run(directory: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command as an administrator would who has no Python environment; stdout has what goes to stderr, too."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0 or not check, done.stdout[-5000:]
    return done


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one commit with what is in this one now."""
    path = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(REPOSITORY, path, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    shutil.rmtree(path / "tests")
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "all"]):
        run(path, "git", *words)
    return path


@pytest.fixture(scope="session")
def deb(tree: Path) -> Path:
    """The Debian package, as `make deb` builds it."""
    run(tree, "make", "deb")
    (path,) = (tree / "dist").glob("*.deb")
    return path
