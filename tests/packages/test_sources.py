"""What packages are built from."""

from __future__ import annotations

import re
from pathlib import Path

from nwfilter_hook import __version__
from tests.host.test_installed import in_private_system
from tests.packages.conftest import run
from tests.support.netns import REPOSITORY


def test_versions() -> None:
    """They are one."""
    assert f"\n## {__version__} " in (REPOSITORY / "CHANGELOG.md").read_text()
    debian = (REPOSITORY / "packaging/debian/changelog").read_text()
    assert debian.startswith(f"nwfilter-hook ({__version__}) ")
    fedora = (REPOSITORY / "packaging/rpm/nwfilter-hook.spec").read_text()
    assert re.search(r"(?m)^Version: *(.*)$", fedora)[1] == __version__  # type: ignore[index]


def test_a_dirty_tree_is_refused(tree: Path) -> None:
    """By file, and nothing is built; what is not committed is in no package."""
    run(tree, "sh", "-c", "echo >>README.md; echo >filters/mine.xml; echo >scratch")
    said = run(tree, "make", "build/source", check=False)
    run(tree, "sh", "-c", "git checkout -q README.md; rm filters/mine.xml scratch")
    assert said.returncode != 0
    assert re.findall(r"(?m)^(?: M|\?\?) (\S+)", said.stdout) == ["README.md", "filters/mine.xml"]


def test_a_release_needs_no_history(tree: Path, tmp_path: Path) -> None:
    """What `git archive` gives is built as it is."""
    run(tree, "sh", "-c", f"git archive --prefix=release/ HEAD | tar -xC {tmp_path}")
    run(tmp_path / "release", "make", "build/source")
    (made,) = (tmp_path / "release/build").glob("nwfilter-hook-*")
    assert (made / "nwfilter_hook/hook.py").exists()


def test_units() -> None:
    """systemd has nothing to say about them, nor about what they start."""
    verify = "systemd-analyze --man=no --recursive-errors=no verify"
    done = in_private_system(
        f"""
        cd /lib/systemd/system
        {verify} nwfilter-hook-*
        sed -i s/ExecStart=/ExecBegin=/ nwfilter-hook-watch.service
        ! {verify} nwfilter-hook-watch.service 2>/dev/null
        """
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
