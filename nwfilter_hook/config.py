"""
The configuration file.

In:  /etc/nwfilter-hook/nwfilter-hook.conf, or the file that NWFILTER_HOOK_CONF names.
Out: a `Config`; every key has a default.

    [paths]
    state_dir = /run/nwfilter-hook
    filter_dirs = /etc/nwfilter-hook/filters:/usr/share/nwfilter-hook/filters
    [nftables]
    counters = drops
    nft = nft
    timeout_s = 20
    [language]
    end_of_chain = return
    [defaults]
    bridge.br0 = clean-traffic

This module is on the path of a libvirt hook that has nothing to do: it imports os and sys only. That is why it reads
the file by itself (configparser brings re and collections) and why `Config` is no dataclass.
"""

from __future__ import annotations

import os
import sys

CONFIG_FILE = "/etc/nwfilter-hook/nwfilter-hook.conf"
CONFIG_VARIABLE = "NWFILTER_HOOK_CONF"
COUNTERS = ("none", "drops", "all")
ENDS_OF_CHAIN = ("return", "accept")
_KEYS = {
    "paths": ("state_dir", "filter_dirs"),
    "nftables": ("counters", "nft", "timeout_s"),
    "language": ("end_of_chain",),
    "defaults": (),
}
MAX_TIMEOUT_S = 600


class Config:
    """
    What the configuration file says.

    Attributes:
        state_dir: absolute path.
        filter_dirs: absolute paths, first wins.
        counters: "none", "drops" or "all".
        nft: the program, a path or a name to look up.
        timeout_s: after which an nft that doesn't answer is given up.
        end_of_chain: what happens to a frame at the end of a sub-chain: "return" to the root chain, or "accept".
        default_filters: bridge name to filter name.
    """

    __slots__ = ("counters", "default_filters", "end_of_chain", "filter_dirs", "nft", "state_dir", "timeout_s")

    def __init__(self) -> None:
        self.state_dir = "/run/nwfilter-hook"
        self.filter_dirs: tuple[str, ...] = ("/etc/nwfilter-hook/filters", stock_filters())
        self.counters = "drops"
        self.nft = "nft"
        self.timeout_s = 20.0
        self.end_of_chain = "return"
        self.default_filters: dict[str, str] = {}


def stock_filters() -> str:
    """The directory of the stock filters: beside the package in a checkout, else where the package was installed to."""
    checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.exists(os.path.join(checkout, "setup.cfg")):
        return os.path.join(checkout, "filters")
    for prefix in (sys.prefix, "/usr/local"):
        installed = os.path.join(prefix, "share/nwfilter-hook/filters")
        if os.path.isdir(installed):
            return installed
    return "/usr/share/nwfilter-hook/filters"


def read_config() -> Config:
    """
    The configuration in force.

    Raises:
        ConfigError: a wrong section, key or value, with its line; or a file that can't be read.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    path = named or CONFIG_FILE
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        if named is None:
            return Config()
        raise _error(f"{path}: no such file, named by {CONFIG_VARIABLE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _error(f"{path}: can't be read: {error}") from error
    return parse_config(text, path)


def parse_config(text: str, path: str) -> Config:
    """
    `text` as a `Config`; `path` is named in messages.

    Raises:
        ConfigError: a wrong section, key or value, with its line.
    """
    config = Config()
    section = None
    seen = set()
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        place = f"{path}:{number}"
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            section = line[1:-1].strip()
            if section not in _KEYS:
                raise _unknown(place, "section", f"[{section}]", [f"[{name}]" for name in _KEYS])
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if section is None or not equals:
            raise _error(f"{place}: {line!r} is neither [section] nor key = value below one")
        if (section, key) in seen:
            raise _error(f"{place}: {key} is given twice in [{section}]")
        seen.add((section, key))
        _set(config, section, key, value, place)
    return config


def _set(config: Config, section: str, key: str, value: str, place: str) -> None:
    if section == "defaults":
        prefix, dot, bridge = key.partition(".")
        if prefix != "bridge" or not dot or not bridge:
            raise _error(f"{place}: unknown key {key!r} in [defaults]; it holds bridge.NAME = FILTER")
        if not value:
            raise _error(f"{place}: {key} needs a filter's name")
        config.default_filters[bridge] = value
    elif key not in _KEYS[section]:
        raise _unknown(place, "key", key, _KEYS[section])
    elif key == "state_dir":
        config.state_dir = _absolute(value, key, place)
    elif key == "filter_dirs":
        config.filter_dirs = tuple(_absolute(part, key, place) for part in value.split(":"))
    elif key == "counters":
        config.counters = _one_of(COUNTERS, value, key, place)
    elif key == "end_of_chain":
        config.end_of_chain = _one_of(ENDS_OF_CHAIN, value, key, place)
    elif key == "nft":
        if not value:
            raise _error(f"{place}: nft needs a path")
        config.nft = value
    else:
        config.timeout_s = _seconds(value, place)


def _one_of(known: tuple[str, ...], value: str, key: str, place: str) -> str:
    if value not in known:
        raise _error(f"{place}: {key} = {value!r} is not one of {' '.join(known)}")
    return value


def _absolute(value: str, key: str, place: str) -> str:
    if not value.startswith("/"):
        raise _error(f"{place}: {key}: {value!r} is not an absolute path")
    return value


def _seconds(value: str, place: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise _error(f"{place}: timeout_s = {value!r} is not a number of seconds above 0 and up to {MAX_TIMEOUT_S}")
    return seconds


def _error(message: str) -> Exception:
    from .base.errors import ConfigError

    return ConfigError(message)


def _unknown(place: str, what: str, word: str, known: list[str] | tuple[str, ...]) -> Exception:
    from .base.text import did_you_mean

    words = list(known)
    hint = did_you_mean(word, words) or f"; known: {' '.join(words)}"
    return _error(f"{place}: unknown {what} {word!r}{hint}")
