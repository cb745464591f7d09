"""
Prometheus' promtool, from Debian's package, unpacked beside the system without being installed: no server is started.

`python -m tests.support.promtool` prefetches it and prints where it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.stock_kernel import DEFAULT_CACHE, locked

TIMEOUT_S = 300


def promtool() -> Path:
    """The program; its directory appears by one rename. Raises CalledProcessError if apt-get can't get it."""
    found = shutil.which("promtool")
    if found:
        return Path(found)
    cache = Path(os.environ.get("NWFILTER_HOOK_TEST_CACHE", DEFAULT_CACHE))
    program = cache / "promtool" / "promtool"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=cache) as directory:
                run = {"cwd": directory, "check": True, "capture_output": True, "timeout": TIMEOUT_S}
                subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "prometheus"], **run)  # type: ignore[call-overload]
                (package,) = Path(directory).glob("*.deb")
                subprocess.run(["dpkg-deb", "-x", package, "all"], **run)  # type: ignore[call-overload]
                ready = Path(directory) / "promtool"
                ready.mkdir()
                shutil.move(Path(directory) / "all/usr/bin/promtool", ready)
                shutil.rmtree(program.parent, ignore_errors=True)
                ready.rename(program.parent)
    return program


if __name__ == "__main__":
    print(promtool())
