"""
The configuration file.

In:  /etc/nwfilter-hook/nwfilter-hook.conf, or the file that NWFILTER_HOOK_CONF names.
Out: a `Config`; every key has a default.

    [paths]
    state_dir = /run/nwfilter-hook
    filter_dirs = /etc/nwfilter-hook/filters:/usr/share/nwfilter-hook/filters
    [nftables]
    counters = drops
    connections = 1/32
    optimise = yes
    [language]
    end_of_chain = return
    [learning]
    never = 192.0.2.1 2001:db8::/64
    [guard]
    mode = generated
    bridges = br0 br1
    trusted = eth0
    unfiltered = accept
    [watch]
    uri = qemu:///system
    status_dir = /run/libvirt/qemu
    listen = none
    [defaults]
    network.default = clean-traffic
    bridge.br-* = clean-traffic CTRL_IP_LEARNING=dhcp DHCPSERVER=192.0.2.1

This module is on the path of a libvirt hook that has nothing to do: it imports os and sys only. That is why it reads
the file by itself (configparser brings re and collections) and why `Config` is no dataclass.
"""

from __future__ import annotations

import os
import sys

CONFIG_FILE = "/etc/nwfilter-hook/nwfilter-hook.conf"
CONFIG_VARIABLE = "NWFILTER_HOOK_CONF"
DEFAULTS_FOR = ("network", "bridge", "floor")
MAX_BYTES = 256 * 1024
_TYPE, _REGULAR = 0o170000, 0o100000  # S_IFMT, S_IFREG


class Default:
    """
    A filter for the interfaces of a network or a bridge.

    Attributes:
        kind: "network" or "bridge": the filter of interfaces that name none; `pattern` is compared with the name of
            the one or the other. "floor": for all interfaces of the bridge, first.
        pattern: a name, or one with *, ? and [...].
        parameters: (name, value) in the order given; a name that comes again is a list.
        path, line: where it is said.
    """

    __slots__ = ("filter", "kind", "line", "parameters", "path", "pattern")

    def __init__(
        self, kind: str, pattern: str, filter: str, parameters: tuple[tuple[str, str], ...], path: str, line: int
    ) -> None:
        self.kind = kind
        self.pattern = pattern
        self.filter = filter
        self.parameters = parameters
        self.path = path
        self.line = line

    def fits(self, name: str | None) -> bool:
        """Whether it is for interfaces of the network or bridge `name`."""
        if name is None:
            return False
        if not {"*", "?", "["}.intersection(self.pattern):
            return name == self.pattern
        from fnmatch import fnmatchcase

        return fnmatchcase(name, self.pattern)


class Config:
    """
    What the configuration file says.

    Attributes:
        state_dir: absolute path.
        filter_dirs: absolute paths, first wins.
        counters: "none", "drops" or "all".
        nft: the program, a path or a name to look up.
        timeout_s: after which an nft that doesn't answer is given up.
        connections: how many a guest may have open: a number, "1/N" of the kernel's table, or "none" for any number.
        optimise: "yes" for rules with fewer steps for a packet, or "no".
        end_of_chain: what happens to a frame at the end of a sub-chain: "return" to the root chain, or "accept".
        never: addresses that no guest learns: version of IP, first, last.
        guard_mode: which ports the guard claims once it is on: "off" (it can't be put on), "generated" (named by
            libvirt), "taps", "bridges" (their taps), "strict" (all of `guard_bridges` but `guard_trusted`).
        guard_allow: names, or beginnings of names with a * behind, that it leaves alone.
        guard_unfiltered: "accept" or "drop": of interfaces that name no filter.
        guard_shield: the service keeps guests from passing anything while rules are flushed.
        uri: of libvirt; "none": it isn't asked.
        poll_s, verify_s: how often the service looks at all guests, and at all rules, though nothing told it to.
        status_dir: where libvirt keeps what it knows of running guests.
        listen: ADDRESS:PORT of the service's metrics, or "none".
        defaults, floors: in the file's order; of each the first that fits an interface counts.
        text: of the file, "" without one; None if this is not what the file says.
    """

    __slots__ = (
        "connections",
        "counters",
        "defaults",
        "end_of_chain",
        "filter_dirs",
        "floors",
        "guard_allow",
        "guard_bridges",
        "guard_mode",
        "guard_shield",
        "guard_trusted",
        "guard_unfiltered",
        "listen",
        "never",
        "nft",
        "optimise",
        "poll_s",
        "state_dir",
        "status_dir",
        "text",
        "timeout_s",
        "uri",
        "verify_s",
    )

    def __init__(self) -> None:
        self.state_dir = "/run/nwfilter-hook"
        self.filter_dirs: tuple[str, ...] = ("/etc/nwfilter-hook/filters", stock_filters())
        self.counters = "drops"
        self.nft = "nft"
        self.timeout_s = 20.0
        self.connections = "1/32"
        self.optimise = "yes"
        self.end_of_chain = "return"
        self.defaults: tuple[Default, ...] = ()
        self.floors: tuple[Default, ...] = ()
        self.never: tuple[tuple[int, int, int], ...] = ()
        self.guard_mode = "generated"
        self.guard_bridges: tuple[str, ...] = ()
        self.guard_trusted: tuple[str, ...] = ()
        self.guard_allow: tuple[str, ...] = ()
        self.guard_unfiltered = "accept"
        self.guard_shield = False
        self.uri = "qemu:///system"
        self.poll_s = 60.0
        self.verify_s = 300.0
        self.status_dir = "/run/libvirt/qemu"
        self.listen = "none"
        self.text: str | None = None


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
        ConfigError: a wrong section, key or value, with its line; a file that can't be read, or that others may write.
    """
    path = config_file()
    try:
        text = read_text(path)
    except FileNotFoundError:
        if CONFIG_VARIABLE not in os.environ:
            return parse_config("", path)
        raise _error(f"{path}: no such file, named by {CONFIG_VARIABLE}") from None
    if not _is_roots_alone(path):
        from .trust import distrust

        fault = distrust(path)
        if fault:
            raise _error(f"{path} is not relied on: {fault}")
    return parse_config(text, path)


def config_file() -> str:
    """The path of the configuration file."""
    return os.environ.get(CONFIG_VARIABLE) or CONFIG_FILE


def read_text(path: str) -> str:
    """
    What is in the file.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: it can't be read, or is no file of text.
    """
    try:
        # without O_NONBLOCK a FIFO that nobody writes to would be waited for
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_mode & _TYPE != _REGULAR:
                raise _error(f"{path}: can't be read: it is not a file")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(data) > MAX_BYTES:
            raise _error(f"{path}: can't be read: it is larger than {MAX_BYTES >> 10} KiB")
        return data.decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise _error(f"{path}: can't be read: {error}") from error


def _is_roots_alone(path: str) -> bool:
    """Whether nobody else may write the file or a directory above: the usual case, told without another module."""
    place, exempt = os.path.abspath(path), 0
    while not os.path.islink(place):
        status = os.stat(place)
        if status.st_uid or (status.st_mode & 0o022 and not status.st_mode & exempt):
            return False
        if place == "/":
            return True
        place, exempt = os.path.dirname(place), 0o1000
    return False


def parse_config(text: str, path: str, *, tolerant: bool = False) -> Config:
    """
    `text` as a `Config`.

    Args:
        path: named in messages.
        tolerant: pass over lines that are wrong.

    Raises:
        ConfigError: a wrong section, key or value, with its line.
    """
    config = Config()
    config.text = text
    section: str | None = None
    seen: dict[tuple[str, str], int] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        try:
            if "\0" in line:
                raise _error(f"{path}:{number}: there is a NUL in this line; a configuration is text")
            if line and line[0] == "[" and line[-1] == "]":
                section = None
                section = _section(line, f"{path}:{number}")
            elif line and line[0] not in "#;":
                _read_line(config, section, seen, line, path, number)
        except Exception:
            if not tolerant:
                raise
    if config.guard_mode in ("bridges", "strict") and not config.guard_bridges:
        if not tolerant:
            place = f"{path}:{seen['guard', 'mode']}"
            raise _error(f"{place}: mode = {config.guard_mode} needs bridges = NAME … in [guard]")
        config.guard_mode = "taps"
    return config


def _section(line: str, place: str) -> str:
    from .settings import SECTIONS

    section = line[1:-1].strip()
    if section not in SECTIONS:
        raise _unknown(place, "section", f"[{section}]", [f"[{name}]" for name in SECTIONS])
    return section


def _read_line(
    config: Config, section: str | None, seen: dict[tuple[str, str], int], line: str, path: str, number: int
) -> None:
    """Take over what a line of `section` says; `seen` holds section, key and number of the lines before."""
    from .settings import SECTIONS

    place = f"{path}:{number}"
    key, equals, value = line.partition("=")
    key, value = key.strip(), value.strip()
    if section is None or not equals:
        raise _error(f"{place}: {line!r} is neither [section] nor key = value below one")
    if (section, key) in seen:
        raise _error(f"{place}: {key} is given twice in [{section}]")
    seen[section, key] = number
    if section == "defaults":
        default = _default(key, value, path, number)
        if default.kind == "floor":
            config.floors += (default,)
        else:
            config.defaults += (default,)
    elif key in SECTIONS[section]:
        try:
            attribute = f"guard_{key}" if section == "guard" else key
            setattr(config, attribute, SECTIONS[section][key](value, key))
        except ValueError as error:
            raise _error(f"{place}: {error}") from None
    else:
        raise _unknown(place, "key", key, list(SECTIONS[section]))


def _default(key: str, value: str, path: str, number: int) -> Default:
    place = f"{path}:{number}"
    kind, dot, pattern = key.partition(".")
    if kind not in DEFAULTS_FOR or not dot or not pattern:
        forms = ", ".join(f"{name}.NAME" for name in DEFAULTS_FOR)
        raise _error(f"{place}: unknown key {key!r} in [defaults]; it holds {forms} = FILTER")
    from .base.names import filter_name_fault, parameter_fault

    filter_name, *words = value.split() or [""]
    if not filter_name or "=" in filter_name:
        raise _error(f"{place}: {key} needs a filter's name")
    fault = filter_name_fault(filter_name)
    parameters = []
    for word in words:
        name, equals, parameter = word.partition("=")
        if not equals:
            raise _error(f"{place}: {key}: {word!r} behind the filter's name is no parameter NAME=VALUE")
        fault = fault or parameter_fault(name, parameter, networks=True)
        parameters.append((name, parameter))
    if fault:
        raise _error(f"{place}: {key}: {fault}")
    return Default(kind, pattern, filter_name, tuple(parameters), path, number)


def _error(message: str) -> Exception:
    from .base.errors import ConfigError

    return ConfigError(message)


def _unknown(place: str, what: str, word: str, known: list[str]) -> Exception:
    from .base.text import did_you_mean

    hint = did_you_mean(word, known) or f"; known: {' '.join(known)}"
    return _error(f"{place}: unknown {what} {word!r}{hint}")
