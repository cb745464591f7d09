"""
Whether anything has changed since a guest was seen to have what it asks for: its domain XML, the configuration, the
guard, its record, its devices, or the kernel's ruleset, which says by one number that nobody has changed it.

In:  an event. Out: yes, or anything else, and then everything is really looked at.

Whoever changes the ruleset (an administrator, another program, our own watch service where it doesn't note it, a hook
that was killed) gives it another generation, so what is noted here only holds for as long as all changes were ours, and
noted. Another boot or network namespace has another ruleset. A hook calls `is_unchanged` before it imports what it
needs for more: next to nothing is imported here.
"""

from __future__ import annotations

import os
import time

from ..nftables.generation import ask_generation, namespace
from ..storage.seen import Seen, read_seen, stamp_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..config import Config

LOOKED_S = 30
"""So long after ways past the filters of all taps were looked for, no other event looks for them: libvirtd has the hook
called for all its guests in a row."""
_NET = "/sys/class/net"


def digest_of(config: Config, guest: str, data: bytes) -> str:
    """
    A digest of all of an event that decides what the guest is to have, but for its devices and filters; "" if it can't
    be told: then everything is looked at.

    Args:
        data: the domain XML.
    """
    from .. import __version__

    if config.text is None or config.floors:  # floors go by bridges, of devices that no record need name
        return ""
    try:
        from _blake2 import blake2b  # what hashlib has, without its OpenSSL
    except ImportError:
        from hashlib import blake2b
    digest = blake2b(digest_size=32)
    for part in (__version__.encode(), config.text.encode(), guest.encode(errors="surrogateescape"), data):
        digest.update(b"%d " % len(part) + part)
    try:
        with open(os.path.join(config.state_dir, "guard"), "rb") as file:
            digest.update(file.read(1 << 16))
    except FileNotFoundError:
        pass
    except OSError:
        return ""
    return digest.hexdigest()


def is_unchanged(config: Config, guest: str, data: bytes) -> bool:
    """Whether a reconnect of the guest has nothing to do, and nothing to say."""
    try:
        seen = read_seen(config.state_dir)
        return seen is not None and stands(config, seen, digest_of(config, guest, data))
    except Exception:  # whatever it is: everything is looked at, and then it is said
        return False


def stands(config: Config, seen: Seen, digest: str) -> bool:
    """The same of an event whose digest is known; "" is none. Raises OSError."""
    uuid = next((uuid for uuid, each in seen.guests.items() if each.event == digest), "")
    if not uuid or not 0 <= now_s() - seen.looked_s < LOOKED_S:
        return False
    names = os.listdir(os.path.join(config.state_dir, "domains"))
    if any(name.endswith((".journal", ".leftover")) for name in names) or f"{uuid}.pending" in names:
        return False
    known = seen.guests[uuid]
    taps = [each.partition("=")[0] for each in known.devices.split(",")]
    return (
        bool(known.stamp)
        and stamp_of(config.state_dir, uuid) == known.stamp
        and all(_owner(config.state_dir, tap) == uuid for tap in taps)
        and devices_of(taps) == known.devices
        and is_as_seen(seen)
    )


def is_as_seen(seen: Seen) -> bool:
    """Whether nobody has changed the ruleset since. Raises OSError."""
    return namespace() == seen.ruleset != "" and ask_generation() == seen.generation


def _owner(state_dir: str, tap: str) -> str:
    with open(os.path.join(state_dir, "taps", tap), encoding="ascii") as file:
        return file.read(64)


def devices_of(taps: Iterable[str]) -> str:
    """What these devices are now: their indexes, their bridges, and whether they are macvtaps."""
    return ",".join(sorted(f"{tap}={_device(tap)}" for tap in taps))


def _device(tap: str) -> str:
    path = f"{_NET}/{tap}"
    try:
        with open(f"{path}/ifindex", encoding="ascii") as file:
            index = file.read(16).strip()
    except OSError:
        return ""
    try:
        bridge = os.path.basename(os.readlink(f"{path}/brport/bridge"))
    except OSError:
        bridge = ""
    return f"{index}/{bridge if bridge.isascii() else '?'}/{os.path.exists(f'{path}/macvtap'):d}"


def now_s() -> int:
    """Seconds since the boot."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))
