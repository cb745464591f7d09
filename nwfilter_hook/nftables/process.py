"""
The nft process: the only module that starts one.

Everything goes in on standard input, nothing through a shell; a run is given up after a bounded time.

`subprocess` takes 5 ms to import with what it needs, a tenth of a guest's start; only a process that goes on is left to
it.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Sequence

from ..base.dataclass import dataclass
from ..base.errors import NftError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

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
        until = time.monotonic() + self._timeout_s
        try:
            with _Child(self._path(), [self._program, *arguments], self._environment(), self._inherited()) as child:
                answers = child.converse(text.encode(errors="replace"), until)
                status = child.wait(until)
        except _TooLate as error:
            message = f"{self._program} did not answer within {self._timeout_s:g} s and was given up"
            raise NftError(message, unsure=True) from error
        except OSError as error:
            raise self._missing(error) from error
        if status < 0:
            raise NftError(f"{self._program} was killed by signal {-status}", unsure=True)
        out, err = (answer.decode(errors="replace") for answer in answers)
        return Ran(status, out, err)

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """
        Start an nft that reads its standard input until that ends; what it prints is nobody's.

        Raises:
            NftError: it can't be started.
        """
        import subprocess

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
        try:
            path = self._path()
            status = os.stat(path)
        except OSError:
            return self._program
        return f"{path} {status.st_size} {status.st_mtime_ns}"

    def _path(self) -> str:
        """Raises FileNotFoundError; what is there but can't be run is for the system to complain of."""
        if os.sep in self._program:
            return os.path.join("/", self._program)
        for place in _search_path().split(os.pathsep):
            path = os.path.join("/", place, self._program)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), *_SBIN]).lstrip(os.pathsep)


class _TooLate(Exception):
    """There was no answer in time."""


class _Child:
    """
    A process, which has ended when the `with` block has: it is killed if it has not.

    Args:
        inherited: descriptors that it gets beside its standard ones; no others.

    Raises:
        OSError: it can't be started.
    """

    def __init__(self, path: str, argv: list[str], environment: dict[str, str], inherited: tuple[int, ...]) -> None:
        self._ours: list[int] = []
        theirs: list[int] = []
        try:
            for number in range(3):
                reading, writing = _pipe()
                self._ours.append(reading if number else writing)
                theirs.append(writing if number else reading)
            actions: list[tuple[int, ...]] = [
                (os.POSIX_SPAWN_CLOSE, each) for each in _inheritable() if each not in inherited
            ]
            actions += ((os.POSIX_SPAWN_DUP2, each, number) for number, each in enumerate(theirs))
            actions += ((os.POSIX_SPAWN_DUP2, each, each) for each in inherited)  # no longer closed by execve
            # as in a process that Python hasn't told to ignore them
            self._process = os.posix_spawn(path, argv, environment, file_actions=actions, setsigdef=(13, 25))
        except BaseException:
            self._close()
            raise
        finally:
            for each in theirs:
                os.close(each)

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        if self._process:
            os.kill(self._process, 9)
            os.waitpid(self._process, 0)

    def _close(self) -> None:
        while self._ours:
            os.close(self._ours.pop())

    def converse(self, data: bytes, until: float) -> tuple[bytes, bytes]:
        """
        What it writes on its standard output and error until it closes both, while it is given `data`.

        Raises:
            _TooLate: it hasn't by then.
        """
        feed, out, err = self._ours
        answers = {out: bytearray(), err: bytearray()}
        left = memoryview(data)
        os.set_blocking(feed, False)
        poll = select.poll()
        for each, event in ((feed, select.POLLOUT), (out, select.POLLIN), (err, select.POLLIN)):
            poll.register(each, event)
        waiting = {feed, out, err}
        while waiting:
            ready = poll.poll(max(0.0, until - time.monotonic()) * 1000)
            if not ready:
                raise _TooLate
            for each, _ in ready:
                if each == feed:
                    left = left[_write(feed, left) :]
                    ended = not left
                else:
                    read = os.read(each, 1 << 16)
                    answers[each] += read
                    ended = not read
                if ended:
                    poll.unregister(each)
                    waiting.remove(each)
                    self._ours.remove(each)
                    os.close(each)
        return bytes(answers[out]), bytes(answers[err])

    def wait(self, until: float) -> int:
        """
        Its exit status, negative if a signal ended it.

        Raises:
            _TooLate: it goes on.
        """
        pause = 0.0005
        while True:
            ended, status = os.waitpid(self._process, os.WNOHANG)
            if ended:
                self._process = 0
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= until:
                raise _TooLate
            time.sleep(pause)
            pause = min(pause * 2, 0.05)


def _write(descriptor: int, data: memoryview) -> int:
    """How much was taken; all of it, if nobody reads."""
    try:
        return os.writev(descriptor, [data[: 1 << 16]])
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(data)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are no standard descriptors, though one of ours may be closed."""
    ends = os.pipe()
    if min(ends) > 2:
        return ends
    import fcntl

    above = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends]
    for end in ends:
        os.close(end)
    return above[0], above[1]


def _inheritable() -> list[int]:
    """Descriptors that a new process would get from us, beside the standard ones."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            pass  # the listing's own
    return found
