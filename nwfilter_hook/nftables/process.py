"""
The nft process: the only module that starts one.

Everything goes in on standard input, nothing through a shell; a run is given up after a bounded time.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence

from ..base.dataclass import dataclass
from ..base.errors import NftError

_SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")


@dataclass(frozen=True)
class Ran:
    """What nft answered."""

    status: int
    out: str
    err: str


class Nft:
    """
    nft on this host.

    Args:
        program: a path, or a name to look up in PATH and the sbin directories.
        timeout_s: after which a run is given up.
        inherited: gives the descriptors that nft is to hold open: the lock's, so that an nft that outlives a killed
            hook keeps everyone else waiting until it is through.
    """

    def __init__(self, program: str, timeout_s: float, inherited: Callable[[], tuple[int, ...]] = tuple) -> None:
        self._program = program
        self._timeout_s = timeout_s
        self._inherited = inherited

    def run(self, arguments: Sequence[str], text: str = "") -> Ran:
        """
        Run nft with `text` on its standard input.

        Raises:
            NftError: it can't be started; or, `.unsure`, it was killed or didn't answer in time.
        """
        try:
            result = subprocess.run(
                [self._program, *arguments],
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._timeout_s,
                env=self._environment(),
                cwd="/",
                check=False,
                pass_fds=self._inherited(),
            )
        except subprocess.TimeoutExpired as error:
            message = f"{self._program} did not answer within {self._timeout_s:g} s and was given up"
            raise NftError(message, unsure=True) from error
        except OSError as error:
            raise self._missing(error) from error
        if result.returncode < 0:
            raise NftError(f"{self._program} was killed by signal {-result.returncode}", unsure=True)
        return Ran(result.returncode, result.stdout, result.stderr)

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """
        Start an nft that reads its standard input until that ends; what it prints is nobody's.

        Raises:
            NftError: it can't be started.
        """
        try:
            return subprocess.Popen(
                [self._program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environment(),
                cwd="/",
                start_new_session=True,  # Ctrl-C is ours to take
            )
        except OSError as error:
            raise self._missing(error) from error

    def _environment(self) -> dict[str, str]:
        return dict(os.environ, LC_ALL="C", PATH=_search_path())

    def _missing(self, error: OSError) -> NftError:
        hint = "install the package nftables, or set [nftables] nft"
        return NftError(f"{self._program} can't be started: {error.strerror}; {hint}")

    def identity(self) -> str:
        """Which program that is: another one, or another version, has another identity. Starts no process."""
        places = [""] if os.sep in self._program else _search_path().split(os.pathsep)
        paths = (os.path.join(place, self._program) for place in places)
        path = next((each for each in paths if os.path.isfile(each) and os.access(each, os.X_OK)), self._program)
        try:
            status = os.stat(path)
        except OSError:
            return path
        return f"{path} {status.st_size} {status.st_mtime_ns}"


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), *_SBIN]).lstrip(os.pathsep)
