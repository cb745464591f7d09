"""
Another host, asked by ssh(1).

In:  what a person calls it: HOST, ssh://[USER@]HOST[:PORT], or a libvirt URI that goes by ssh.
Out: what our command prints there. Never on the hook's path.
"""

from __future__ import annotations

import re
import subprocess
from urllib.parse import urlsplit

from ..base.errors import NwfilterHookError

TIMEOUT_S = 60
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
COMMAND = "nwfilter-hook digest --all --json"


def is_remote(destination: str) -> bool:
    """Whether it names a host, not a file."""
    return "://" in destination


def ssh_arguments(destination: str) -> list[str]:
    """
    What ssh is started with.

    Raises:
        NwfilterHookError: it names no host that ssh leads to.
    """
    forms = "ssh://[USER@]HOST[:PORT], or a libvirt URI such as qemu+ssh://HOST/system"
    try:
        parts = urlsplit(destination)
        host, user, port = parts.hostname or "", parts.username, parts.port
    except ValueError:
        raise NwfilterHookError(f"{destination!r} is not {forms}") from None
    by_ssh = parts.scheme == "ssh" or parts.scheme.endswith("+ssh")
    if not by_ssh or not _HOST.fullmatch(host) or (user is not None and not _USER.fullmatch(user)):
        raise NwfilterHookError(f"{destination!r} is not {forms}")
    where = ["-l", user] if user else []
    where += ["-p", str(port)] if port else []
    return ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={TIMEOUT_S // 4}", *where, "--", host, COMMAND]


def ask(destination: str) -> bytes:
    """
    What the other host says of itself.

    Raises:
        NwfilterHookError: ssh isn't there, the host doesn't answer, or the command fails there.
    """
    command = ssh_arguments(destination)
    try:
        ran = subprocess.run(  # noqa: S603 - no shell here; the words are checked
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise NwfilterHookError("there is no ssh; give a file that `digest --all --json` has printed there") from None
    except subprocess.TimeoutExpired:
        raise NwfilterHookError(f"{destination}: no answer in {TIMEOUT_S} s") from None
    if ran.returncode:
        said = ran.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {ran.returncode}"]
        raise NwfilterHookError(f"{destination}: {said[-1]}")
    return ran.stdout
