"""
A netlink socket, without what the module `socket` wraps around it.

That imports selectors and enum, makes enums of all constants, and takes 3 ms of a hook's time; `_socket`, on which it
stands, has all that is needed here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
else:
    import _socket

_AF_NETLINK, _SOCK_RAW, _SOCK_CLOEXEC = 16, 3, 0o2000000


class Door(_socket.socket):
    """One, of a protocol of netlink's; closed when its `with` block ends. Raises OSError."""

    def __init__(self, protocol: int) -> None:
        super().__init__(_AF_NETLINK, _SOCK_RAW | _SOCK_CLOEXEC, protocol)

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
