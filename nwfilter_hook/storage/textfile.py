"""
A file that another program reads at any moment: whole or not at all.

In:  its path and text.
Out: it is there, readable for all; what was there before stays if it can't be written.
"""

from __future__ import annotations

import contextlib
import os

from ..base.errors import NwfilterHookError


def write_textfile(path: str, data: bytes) -> None:
    """
    Replace the file.

    Raises:
        NwfilterHookError: the directory isn't there, is full, or can't be written to; nothing has changed.
    """
    directory, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        with open(os.open(temporary, flags, 0o644), "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(data)
            file.flush()
        os.replace(temporary, path)
    except FileNotFoundError:
        raise NwfilterHookError(f"{path} can't be written: there is no directory {directory}") from None
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise NwfilterHookError(f"{path} can't be written: {error.strerror}; the old one stays") from error
