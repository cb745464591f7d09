"""
Another release of Debian beside the system: a root directory made by debootstrap(8), and processes in it.

In:  the release's name, and debootstrap, which apt-get installs.
Out: a `DebianRoot`; what runs in it sees that root as its own, with the machine's kernel, network and devices.

The root is kept in the cache directory of `stock_kernel`, as `debian-RELEASE`, complete if it is there; a test may
change it, since all that it needs it installs. It begins as a copy of `fresh-RELEASE`, which nobody changes. It
is given the machine's way to packages each time: resolver, certificates, configuration of apt and pip. Mounts are made
in a mount namespace of each process, so none is left.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.stock_kernel import DEFAULT_CACHE, locked

TIMEOUT_S = 600
# what the machine knows about packages and where to get them; what isn't there isn't copied
_CONFIGURATION = (
    *(
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/apt/apt.conf.d",
        "/etc/apt/auth.conf.d",
    ),
    *("/etc/pip.conf", "/etc/xdg/pip", "/root/.config/pip", "/root/.pip"),
)
# umount from the new root: pivot_root(8) wants the old one out of the way, and nested namespaces a root of their own
_ENTER = """
set -eu
root=$1 directory=$2; shift 2
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir -p old
pivot_root . old
umount -l /old
cd "$directory"
exec "$@"
"""


class NoDebianRoot(Exception):
    """It can't be made; `str()` is what debootstrap said."""


@dataclass(frozen=True)
class DebianRoot:
    """A root directory with a minimal Debian in it."""

    path: Path

    def entering(self, directory: str, *command: str) -> list[str]:
        """The words that run `command` in `directory` of this root, for subprocess."""
        return [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            _ENTER,
            "sh",
            str(self.path),
            directory,
            *command,
        ]

    def environment(self) -> dict[str, str]:
        """What a process in it should have: what this one has, without this one's Python."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
        }
        return {**inherited, "PATH": path, "LC_ALL": "C.UTF-8", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}

    def copy(self, tree: Path, directory: str) -> None:
        """Put a copy of a source tree there, in place of an older one, without what was made in it."""
        target = self.path / directory.lstrip("/")
        shutil.rmtree(target, ignore_errors=True)
        made = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "build")
        shutil.copytree(tree, target, symlinks=True, ignore=made)

    def configure(self) -> None:
        """Give it the machine's way to packages."""
        for name in _CONFIGURATION:
            source, target = Path(name), self.path / name.lstrip("/")
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            elif source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)


def debian_root(release: str) -> DebianRoot:
    """
    The root of that release, made if it isn't there yet, and configured.

    Raises:
        NoDebianRoot: it can't be made.
    """
    return _made(f"debian-{release}", release, lambda work: _copy(fresh_root(release).path, work))


def fresh_root(release: str) -> DebianRoot:
    """
    A root as debootstrap leaves it, made if it isn't there yet, and configured; to be copied, not changed.

    Raises:
        NoDebianRoot: it can't be made.
    """
    return _made(f"fresh-{release}", release, lambda work: _debootstrap(release, work))


@contextmanager
def root_for_a_test(release: str) -> Iterator[DebianRoot]:
    """A copy of a fresh root, which is gone afterwards. Raises NoDebianRoot."""
    fresh = fresh_root(release).path
    with tempfile.TemporaryDirectory(prefix=f".test-{release}-", dir=fresh.parent, ignore_cleanup_errors=True) as path:
        _copy(fresh, Path(path))
        Path(path).chmod(0o755)
        yield DebianRoot(Path(path))


def _made(name: str, release: str, make: Callable[[Path], None]) -> DebianRoot:
    cache = Path(os.environ.get("NWFILTER_HOOK_TEST_CACHE") or DEFAULT_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    root = DebianRoot(cache / name)
    with locked(cache / f"lock-{name}"):
        if not root.path.is_dir():
            for abandoned in cache.glob(f".{name}-*"):  # by a process that was killed: we hold the lock
                shutil.rmtree(abandoned)
            work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
            make(work)
            work.chmod(0o755)
            work.rename(root.path)
    root.configure()
    return root


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", f"{source}/.", target], check=True)


def _debootstrap(release: str, directory: Path) -> None:
    command = ["debootstrap", "--variant=minbase", "--include=ca-certificates,make", release, str(directory)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoDebianRoot(f"debootstrap: {error}") from error
    if done.returncode:
        raise NoDebianRoot("\n".join(done.stdout.splitlines()[-10:] + done.stderr.splitlines()[-10:]))
