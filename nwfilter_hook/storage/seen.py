"""
Which guests were seen to have in the kernel what their records say, and at which generation of the kernel's ruleset:
what nobody has changed since needs no look.

    STATE_DIR/seen      text: a line that says which file this is; one with the ruleset, its generation, and when ways
                        past filters were looked for last; then one for each guest

In:  the state directory. Out: a `Seen`, or None: then everything is looked at. It is never needed, and a file that is
lost, old, or can't be read, costs time only. A hook that has nothing to do reads it: next to nothing is imported here.
"""

from __future__ import annotations

import os

NAME = "seen"
_HEAD = "nwfilter-hook seen 1"
_MAX_BYTES = 4 * 1024 * 1024
_REGULAR, _TYPE = 0o100000, 0o170000
_OTHERS = 0o022
NOTHING = "-"


class SeenGuest:
    """
    One guest.

    Attributes:
        stamp: of its record, see `stamp_of`; "-" if it isn't known whether that is in force.
        event: digest of the event at which it had what it asks for; "-" if only its record is in force.
        devices: its taps as they were then, see operations.unchanged; "-" likewise.
    """

    __slots__ = ("devices", "event", "stamp")

    def __init__(self, stamp: str, event: str = NOTHING, devices: str = NOTHING) -> None:
        self.stamp, self.event, self.devices = stamp, event, devices


class Seen:
    """
    What is known of one ruleset.

    Attributes:
        ruleset: which, among those of all boots and network namespaces.
        generation: at which the guests, by UUID, have what their records say.
        looked_s: when ways past the filters of all taps were looked for, in seconds since the boot.
    """

    __slots__ = ("generation", "guests", "looked_s", "ruleset")

    def __init__(self, ruleset: str, generation: int, looked_s: int, guests: dict[str, SeenGuest]) -> None:
        self.ruleset, self.generation, self.looked_s, self.guests = ruleset, generation, looked_s, guests

    def text(self) -> str:
        """As the file has it."""
        lines = [_HEAD, f"{self.ruleset} {self.generation} {self.looked_s}"]
        lines += (f"{uuid} {each.stamp} {each.event} {each.devices}" for uuid, each in self.guests.items())
        return "\n".join((*lines, ""))


def read_seen(state_dir: str) -> Seen | None:
    """What was seen; None if nothing was, it can't be read, or others than root could have put it there."""
    try:
        around = os.stat(state_dir)
        if around.st_uid != os.geteuid() or around.st_mode & _OTHERS:
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(os.path.join(state_dir, NAME), flags)
        try:
            status = os.fstat(descriptor)
            if status.st_mode & _TYPE != _REGULAR or status.st_uid != os.geteuid() or status.st_size > _MAX_BYTES:
                return None
            with open(descriptor, "rb", closefd=False) as file:
                lines = file.read().decode("ascii").split("\n")
        finally:
            os.close(descriptor)
        if lines[0] != _HEAD or lines[-1]:
            return None
        ruleset, generation, looked_s = lines[1].split(" ")
        guests = {}
        for line in lines[2:-1]:
            uuid, stamp, event, devices = line.split(" ")
            guests[uuid] = SeenGuest(stamp, event, devices)
        return Seen(ruleset, int(generation), int(looked_s), guests)
    except (OSError, ValueError, IndexError):
        return None


def stamp_of(state_dir: str, uuid: str) -> str:
    """Another one as soon as the guest's record has been written again; "" without one."""
    try:
        status = os.stat(os.path.join(state_dir, "domains", f"{uuid}.json"))
    except OSError:
        return ""
    return f"{status.st_ino}.{status.st_mtime_ns}.{status.st_size}"
