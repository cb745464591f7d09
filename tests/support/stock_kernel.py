"""
Debian's own kernel, unpacked beside the system without being installed.

In:  the package that `linux-image-amd64` depends on, from the configured apt sources.
Out: a `StockKernel`, i.e. vmlinuz and the modules of one release, ready for `modprobe` and for a small VM.

The kernel is kept in a cache directory (env NWFILTER_HOOK_TEST_CACHE, default /var/cache/nwfilter-hook-tests):
    KERNEL-PACKAGE/boot/vmlinuz-RELEASE     KERNEL-PACKAGE/lib/modules/RELEASE      lock
A directory appears there by one rename, so it is complete if it exists; `lock` (flock) is held while it is made.

`python -m tests.support.stock_kernel` prefetches it and prints where it is.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

META_PACKAGE = "linux-image-amd64"
DEFAULT_CACHE = Path("/var/cache/nwfilter-hook-tests")
DOWNLOAD_TIMEOUT_S = 600


class NoStockKernel(Exception):
    """The package can't be found, downloaded or unpacked; `str()` is what the tool that failed said."""


@dataclass(frozen=True)
class StockKernel:
    """
    One unpacked kernel.

    Attributes:
        vmlinuz: the bootable image, .../boot/vmlinuz-RELEASE.
        modules: .../lib/modules/RELEASE with modules.dep; three levels up is what `modprobe -d` wants.
        release: what `uname -r` says once it runs.
    """

    vmlinuz: Path
    modules: Path
    release: str


def stock_kernel() -> StockKernel:
    """
    Return Debian's kernel; download and unpack it if the cache does not hold it yet.

    Raises:
        NoStockKernel: apt doesn't know it or can't fetch it and the cache holds no older one.
    """
    cache = Path(os.environ.get("NWFILTER_HOOK_TEST_CACHE") or DEFAULT_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        try:
            package = _kernel_package()
            if not (cache / package).is_dir():
                _download(package, cache)
        except NoStockKernel:
            # Without network, or when the archive has moved on since the last `apt-get update`.
            older = sorted(cache.glob("linux-image-*"), key=os.path.getmtime)
            if not older:
                raise
            package = older[-1].name
        return _unpacked(cache / package)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _kernel_package() -> str:
    """The versioned package behind META_PACKAGE, e.g. linux-image-6.1.0-13-amd64."""
    depends = _run(["apt-cache", "depends", "--important", META_PACKAGE])
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if not found:
        raise NoStockKernel(f"apt-cache knows no dependency of {META_PACKAGE}: {depends!r}")
    return found.group(1)


def _download(package: str, cache: Path) -> None:
    """Make `cache`/`package` from the package of that name."""
    for abandoned in cache.glob(".unpack-*"):  # by a process that was killed: we hold the lock
        shutil.rmtree(abandoned)
    work = Path(tempfile.mkdtemp(prefix=".unpack-", dir=cache))
    try:
        work.chmod(0o755)
        # Debs are fetched as user _apt where that can write; here it can't, and apt says so on every download.
        _run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], cwd=work)
        (deb,) = work.glob("*.deb")
        root = work / "root"
        _run(["dpkg-deb", "-x", str(deb), str(root)], cwd=work)
        # The package makes modules.dep in its postinst, which never runs here.
        _run(["depmod", "-b", str(root), _unpacked(root).release], cwd=work)
        root.rename(cache / package)
    finally:
        shutil.rmtree(work)


def _unpacked(root: Path) -> StockKernel:
    (vmlinuz,) = root.glob("boot/vmlinuz-*")
    release = vmlinuz.name[len("vmlinuz-") :]
    return StockKernel(vmlinuz, root / "lib" / "modules" / release, release)


def _run(command: list[str], cwd: Path | None = None) -> str:
    """Run `command` in the C locale and return what it printed."""
    # depmod lives in /sbin, which a user's PATH may lack.
    env = {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoStockKernel(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise NoStockKernel(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


if __name__ == "__main__":
    kernel = stock_kernel()
    print(kernel.release, kernel.vmlinuz, kernel.modules)
