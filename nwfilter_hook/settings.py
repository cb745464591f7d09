"""
What the keys of the configuration file may hold.

In:  the text of a value.
Out: what the attribute of that name in `config.Config` becomes; or a ValueError that says what is wrong with it.

On the path of a hook that has nothing to do: nothing is imported, but where a file names addresses.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

COUNTERS = ("none", "drops", "all")
ENDS_OF_CHAIN = ("return", "accept")
MAX_TIMEOUT_S = 600
MAX_PERIOD_S = 86_400
LOCAL_URIS = ("qemu:///", "qemu+unix:///")
MAX_CONNECTIONS = 1_000_000
MODES = ("off", "generated", "taps", "bridges", "strict")
UNFILTERED = ("accept", "drop")
MAX_NAMES = 256
MAX_NETWORKS = 256
"""Of addresses and networks in a list: each becomes an element in each bridge's sets."""


def _path(value: str, key: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{key}: {value!r} is not an absolute path")
    return value


def _paths(value: str, key: str) -> tuple[str, ...]:
    return tuple(_path(part, key) for part in value.split(":"))


def _program(value: str, key: str) -> str:
    if not value:
        raise ValueError(f"{key} needs a path")
    return value


def _counters(value: str, key: str) -> str:
    return _one_of(COUNTERS, value, key)


def _yes_or_no(value: str, key: str) -> str:
    return _one_of(("yes", "no"), value, key)


def _end_of_chain(value: str, key: str) -> str:
    return _one_of(ENDS_OF_CHAIN, value, key)


def _one_of(known: tuple[str, ...], value: str, key: str) -> str:
    if value not in known:
        raise ValueError(f"{key} = {value!r} is not one of {' '.join(known)}")
    return value


def _seconds(value: str, key: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise ValueError(f"{key} = {value!r} is not a number of seconds above 0 and up to {MAX_TIMEOUT_S}")
    return seconds


def _period(value: str, key: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MAX_PERIOD_S:
        raise ValueError(f"{key} = {value!r} is not a number of seconds from 1 to {MAX_PERIOD_S}")
    return seconds


def _uri(value: str, key: str) -> str:
    if value != "none" and not value.startswith(LOCAL_URIS):
        forms = " or ".join(f"{each}…" for each in LOCAL_URIS)
        raise ValueError(f"{key} = {value!r} is neither none nor the URI of this host's libvirt, {forms}")
    return value


def _listen(value: str, key: str) -> str:
    if value == "none":
        return value
    address, _, port = value.rpartition(":")
    import ipaddress

    try:
        host = ipaddress.ip_address(address[1:-1] if address[:1] == "[" and address[-1:] == "]" else address)
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536) or (host.version == 6) != (
            address[0] == "["
        ):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{key} = {value!r} is neither none nor ADDRESS:PORT, such as 127.0.0.1:9918 or [::1]:9918"
        ) from None
    return value


def _connections(value: str, key: str) -> str:
    one, _, parts = value.partition("/")
    number = parts if one == "1" and parts else value
    is_number = number.isascii() and number.isdigit() and len(number) <= len(str(MAX_CONNECTIONS))
    if value != "none" and not (is_number and 1 <= int(number) <= MAX_CONNECTIONS):
        raise ValueError(f"{key} = {value!r} is not 1/N, a number from 1 to {MAX_CONNECTIONS}, or none")
    return value


def _networks(value: str, key: str) -> tuple[tuple[int, int, int], ...]:
    """Addresses and networks of either version, commas or blanks between them: of each the version, first and last."""
    words = value.replace(",", " ").split()
    if not 0 < len(words) <= MAX_NETWORKS:
        raise ValueError(f"{key} takes 1 to {MAX_NETWORKS} addresses or networks, not {len(words)}")
    return tuple(_network(word, key) for word in words)


def _network(text: str, key: str) -> tuple[int, int, int]:
    import ipaddress

    address, _, length = text.partition("/")
    try:
        if "%" in text or (length and not length.isdigit()):
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        expected = "an address such as 192.0.2.1 or 2001:db8::1, or a network such as 192.0.2.8/29"
        raise ValueError(f"{key}: {text!r} is not {expected}") from None
    if network.network_address != ipaddress.ip_address(address):
        raise ValueError(f"{key}: {text!r} is within {network}; write that network, or one address alone")
    return network.version, int(network.network_address), int(network.broadcast_address)


def _mode(value: str, key: str) -> str:
    return _one_of(MODES, value, key)


def _unfiltered(value: str, key: str) -> str:
    return _one_of(UNFILTERED, value, key)


def _truth(value: str, key: str) -> bool:
    return _one_of(("yes", "no"), value, key) == "yes"


def _names(value: str, key: str) -> tuple[str, ...]:
    """Names of devices, commas or blanks between them."""
    return _listed(value, key, "the name of a device")


def _patterns(value: str, key: str) -> tuple[str, ...]:
    """Names of devices, or the beginnings of names with a * behind."""
    return _listed(value, key, "the name of a device, nor the beginning of one with * behind", "*")


def _listed(value: str, key: str, expected: str, ending: str = "") -> tuple[str, ...]:
    words = value.replace(",", " ").split()
    if not 0 < len(words) <= MAX_NAMES:
        raise ValueError(f"{key} takes 1 to {MAX_NAMES} names, not {len(words)}")
    for word in words:
        if not _is_device_name(word.removesuffix(ending)):
            raise ValueError(f"{key}: {word!r} is not {expected}: up to 15 of A-Z a-z 0-9 _ . -")
    return tuple(dict.fromkeys(words))


def _is_device_name(text: str) -> bool:
    """Whether it can stand in a script for a device: see base.addresses.is_tap_name."""
    letters = text.isascii() and text.translate(_MARKS).isalnum()
    return letters and len(text) <= 15 and text not in (".", "..")


_MARKS = {ord(mark): "x" for mark in "_.-"}


SECTIONS: dict[str, dict[str, Callable[[str, str], object]]] = {
    "paths": {"state_dir": _path, "filter_dirs": _paths},
    "nftables": {
        "counters": _counters,
        "nft": _program,
        "timeout_s": _seconds,
        "connections": _connections,
        "optimise": _yes_or_no,
    },
    "language": {"end_of_chain": _end_of_chain},
    "learning": {"never": _networks},
    "guard": {
        "mode": _mode,
        "bridges": _names,
        "trusted": _names,
        "allow": _patterns,
        "unfiltered": _unfiltered,
        "shield": _truth,
    },
    "watch": {"uri": _uri, "poll_s": _period, "verify_s": _period, "status_dir": _path, "listen": _listen},
    "defaults": {},
}
"""
Section, key, and what makes the attribute of that name of the value and the key; of section guard it is guard_KEY.
"""
