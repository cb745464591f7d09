"""The configuration file: every key has a default, and whatever is wrong is named with its line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nwfilter_hook.base.errors import ConfigError
from nwfilter_hook.config import CONFIG_VARIABLE, Config, parse_config, read_config, stock_filters

REPOSITORY = Path(__file__).parents[2]


LISTEN = "such as 127.0.0.1:9918 or [::1]:9918"
WRONG_LISTEN = (
    "",
    "9918",
    ":9918",
    "host:9918",
    "127.0.0.1",
    "127.0.0.1:0",
    "127.0.0.1:65536",
    "::1:9918",
    "[127.0.0.1]:1",
    "[::1]",
)


def values(config: Config) -> dict[str, Any]:
    found = {name: getattr(config, name) for name in Config.__slots__ if name != "text"}
    for name in ("defaults", "floors"):
        found[name] = [
            (each.kind, each.pattern, each.filter, each.parameters, f"{each.path}:{each.line}") for each in found[name]
        ]
    return found


DEFAULTS = {
    "state_dir": "/run/nwfilter-hook",
    "filter_dirs": ("/etc/nwfilter-hook/filters", str(REPOSITORY / "filters")),
    "counters": "drops",
    "nft": "nft",
    "timeout_s": 20.0,
    "connections": "1/32",
    "optimise": "yes",
    "end_of_chain": "return",
    "defaults": [],
    "floors": [],
    "never": (),
    "guard_mode": "generated",
    "guard_bridges": (),
    "guard_trusted": (),
    "guard_allow": (),
    "guard_unfiltered": "accept",
    "guard_shield": False,
    "uri": "qemu:///system",
    "poll_s": 60.0,
    "verify_s": 300.0,
    "status_dir": "/run/libvirt/qemu",
    "listen": "none",
}
"""But for `text`."""


@pytest.mark.parametrize("text", ["", "# a comment\n; another\n\n[paths]\n[nftables]\n[defaults]\n"])
def test_defaults(text: str) -> None:
    """A file that sets nothing changes nothing."""
    assert values(parse_config(text, "c")) == DEFAULTS


def test_every_key() -> None:
    """Every key of the contract is read; blanks around it mean nothing."""
    text = """
[paths]
state_dir=/tmp/state
  filter_dirs = /a:/b c
[nftables]
counters = all
nft = /usr/sbin/nft
timeout_s = 0.5
connections = 5000
optimise = no
[language]
end_of_chain = accept
[learning]
never = 192.0.2.1, 192.0.2.8/29 2001:db8::1
[guard]
mode = strict
bridges = br0, br1 br0
trusted = eth0
allow = ovpn* tap-lab
unfiltered = drop
shield = yes
[watch]
uri = none
poll_s = 5
verify_s = 3600
status_dir = /run/other
listen = [::1]:9918
[defaults]
bridge.br0 = clean-traffic
bridge.br.1=no-mac-spoofing
network.my net = clean-traffic CTRL_IP_LEARNING=dhcp   DHCPSERVER=10.0.0.1 DHCPSERVER=10.0.0.2
floor.br-* = no-mac-spoofing
"""
    assert values(parse_config(text, "c")) == {
        "state_dir": "/tmp/state",
        "filter_dirs": ("/a", "/b c"),
        "counters": "all",
        "nft": "/usr/sbin/nft",
        "timeout_s": 0.5,
        "connections": "5000",
        "optimise": "no",
        "end_of_chain": "accept",
        "uri": "none",
        "poll_s": 5.0,
        "verify_s": 3600.0,
        "status_dir": "/run/other",
        "listen": "[::1]:9918",
        "defaults": [
            ("bridge", "br0", "clean-traffic", (), "c:29"),
            ("bridge", "br.1", "no-mac-spoofing", (), "c:30"),
            (
                "network",
                "my net",
                "clean-traffic",
                (("CTRL_IP_LEARNING", "dhcp"), ("DHCPSERVER", "10.0.0.1"), ("DHCPSERVER", "10.0.0.2")),
                "c:31",
            ),
        ],
        "floors": [("floor", "br-*", "no-mac-spoofing", (), "c:32")],
        "never": (
            (4, 0xC0000201, 0xC0000201),
            (4, 0xC0000208, 0xC000020F),
            (6, 0x20010DB8 << 96 | 1, 0x20010DB8 << 96 | 1),
        ),
        "guard_mode": "strict",
        "guard_bridges": ("br0", "br1"),
        "guard_trusted": ("eth0",),
        "guard_allow": ("ovpn*", "tap-lab"),
        "guard_unfiltered": "drop",
        "guard_shield": True,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[path]", "c:1: unknown section '[path]'; did you mean '[paths]'?"),
        (
            "[zzz]",
            "c:1: unknown section '[zzz]'; known: [paths] [nftables] [language] [learning] [guard] [watch] [defaults]",
        ),
        ("[paths]\n\nstatedir = /x", "c:3: unknown key 'statedir'; did you mean 'state_dir'?"),
        ("[nftables]\nstate_dir = /x", "c:2: unknown key 'state_dir'"),
        ("state_dir = /x", "c:1: 'state_dir = /x' is neither [section] nor key = value below one"),
        ("[paths]\nstate_dir", "c:2: 'state_dir' is neither [section] nor key = value below one"),
        ("[paths]\nstate_dir = /a\nstate_dir = /b", "c:3: state_dir is given twice in [paths]"),
        ("[paths]\nstate_dir = run", "c:2: state_dir: 'run' is not an absolute path"),
        ("[paths]\nstate_dir =", "c:2: state_dir: '' is not an absolute path"),
        ("[paths]\nfilter_dirs = /a::/b", "c:2: filter_dirs: '' is not an absolute path"),
        ("[paths]\nfilter_dirs = /a:b", "c:2: filter_dirs: 'b' is not an absolute path"),
        ("[nftables]\ncounters = some", "c:2: counters = 'some' is not one of none drops all"),
        ("[nftables]\noptimise = true", "c:2: optimise = 'true' is not one of yes no"),
        ("[nftables]\noptimise =", "c:2: optimise = '' is not one of yes no"),
        ("[language]\nend_of_chain = drop", "c:2: end_of_chain = 'drop' is not one of return accept"),
        ("[nftables]\nnft =", "c:2: nft needs a path"),
        ("[learning]\nnever =", "c:2: never takes 1 to 256 addresses or networks, not 0"),
        (
            "[learning]\nnever = " + "10.0.0.1 " * 257,
            "c:2: never takes 1 to 256 addresses or networks, not 257",
        ),
        ("[learning]\nnever = router", "c:2: never: 'router' is not an address such as 192.0.2.1 or"),
        ("[learning]\nnever = 10.0.0.1 fe80::1%br0", "c:2: never: 'fe80::1%br0' is not an address such as"),
        ("[learning]\nnever = 10.0.0.0/255.0.0.0", "c:2: never: '10.0.0.0/255.0.0.0' is not an address such as"),
        (
            "[learning]\nnever = 10.0.0.1/24",
            "c:2: never: '10.0.0.1/24' is within 10.0.0.0/24; write that network",
        ),
        ("[learning]\nnever = 10.0.0.1\nnever = 10.0.0.2", "c:3: never is given twice in [learning]"),
        ("[guard]\nmode = all", "c:2: mode = 'all' is not one of off generated taps bridges strict"),
        ("[guard]\nmode =", "c:2: mode = '' is not one of"),
        ("[guard]\nallow = x\nmode = bridges", "c:3: mode = bridges needs bridges = NAME … in [guard]"),
        ("[guard]\nmode = strict\ntrusted = eth0", "c:2: mode = strict needs bridges"),
        ("[guard]\nbridges =", "c:2: bridges takes 1 to 256 names, not 0"),
        ("[guard]\nallow = " + " ".join(f"t{each}" for each in range(257)), "c:2: allow takes 1 to 256 names, not 257"),
        ("[guard]\nbridges = br*", "c:2: bridges: 'br*' is not the name of a device: up to 15 of A-Z a-z 0-9 _ . -"),
        ("[guard]\nbridges = a-very-long-name", "c:2: bridges: 'a-very-long-name' is not the name of a device"),
        ("[guard]\ntrusted = ..", "c:2: trusted: '..' is not the name of a device"),
        ("[guard]\ntrusted = eth\u00e4", "c:2: trusted: 'eth\u00e4' is not the name of a device"),
        *(
            (f"[guard]\nallow = {text}", f"c:2: allow: {text!r} is not the name of a device, nor the beginning of one")
            for text in ("*", "tap*x", "**", 'tap"', "tap;drop", "a/b", "ta?")
        ),
        ("[guard]\nunfiltered = reject", "c:2: unfiltered = 'reject' is not one of accept drop"),
        ("[guard]\nshield = true", "c:2: shield = 'true' is not one of yes no"),
        ("[guard]\nmode = taps\nmode = off", "c:3: mode is given twice in [guard]"),
        ("[nftables]\ntimeout_s = 0", "c:2: timeout_s = '0' is not a number of seconds above 0 and up to 600"),
        ("[nftables]\ntimeout_s = -1", "c:2: timeout_s"),
        ("[nftables]\ntimeout_s = 601", "c:2: timeout_s"),
        ("[nftables]\ntimeout_s = nan", "c:2: timeout_s"),
        ("[nftables]\ntimeout_s = inf", "c:2: timeout_s"),
        ("[nftables]\ntimeout_s = 5s", "c:2: timeout_s = '5s'"),
        ("[nftables]\nconnections = 0", "c:2: connections = '0' is not 1/N, a number from 1 to 1000000, or none"),
        *(
            (f"[watch]\n{key} = {text}", f"c:2: {key} = {text!r} is not a number of seconds from 1 to 86400")
            for key in ("poll_s", "verify_s")
            for text in ("", "0", "0.5", "-1", "nan", "inf", "86401", "1m")
        ),
        *(
            (
                f"[watch]\nuri = {text}",
                f"c:2: uri = {text!r} is neither none nor the URI of this host's libvirt, qemu:///",
            )
            for text in ("", "None", "xen:///system", "qemu+ssh://elsewhere/system", "test:///default")
        ),
        ("[watch]\nstatus_dir = run", "c:2: status_dir: 'run' is not an absolute path"),
        *(
            (f"[watch]\nlisten = {wrong}", f"c:2: listen = {wrong!r} is neither none nor ADDRESS:PORT, {LISTEN}")
            for wrong in WRONG_LISTEN
        ),
        ("[watch]\nuri = none\nuri = none", "c:3: uri is given twice in [watch]"),
        *(
            (f"[nftables]\nconnections = {text}", f"c:2: connections = {text!r} is not")
            for text in ("", "1/0", "2/3", "1/", "-5", "1e3", "1000001", "1/1000001", "many", "\u0663")
        ),
        (
            "[defaults]\nbr0 = x",
            "c:2: unknown key 'br0' in [defaults]; it holds network.NAME, bridge.NAME, floor.NAME = FILTER",
        ),
        ("[defaults]\nbridge. = x", "c:2: unknown key 'bridge.' in [defaults]"),
        ("[defaults]\nnetwork = x", "c:2: unknown key 'network' in [defaults]"),
        ("[defaults]\nfloor. = x", "c:2: unknown key 'floor.' in [defaults]"),
        ("[defaults]\nfloor.b =", "c:2: floor.b needs a filter's name"),
        ("[defaults]\nfloor.b = f\nfloor.b = g", "c:3: floor.b is given twice in [defaults]"),
        ("[defaults]\nnetworks.n = x", "c:2: unknown key 'networks.n'"),
        ("[defaults]\nbridge.b* = x\nbridge.b* = y", "c:3: bridge.b* is given twice in [defaults]"),
        ("[defaults]\nbridge.b = A=1", "c:2: bridge.b needs a filter's name"),
        (
            "[defaults]\nbridge.b = f A=1 B",
            "c:2: bridge.b: 'B' behind the filter's name is no parameter NAME=VALUE",
        ),
        ("[defaults]\nbridge.b = f A=", "c:2: bridge.b: parameter A: value '' may only hold"),
        ("[defaults]\nbridge.b = f =1", "c:2: bridge.b: parameter name '': use A-Z a-z 0-9 _"),
        ("[defaults]\nbridge.b = f A-B=1", "c:2: bridge.b: parameter name 'A-B': use A-Z a-z 0-9 _"),
        (
            "[defaults]\nbridge.b = f A=1,2",
            "c:2: bridge.b: parameter A: value '1,2' may only hold A-Z a-z 0-9 _ . : and, in a network, a length such "
            "as /29; for a list repeat the parameter",
        ),
        ("[defaults]\nbridge.b = f A=1/2/3", "c:2: bridge.b: parameter A: value '1/2/3' may only hold"),
        ("[defaults]\nbridge.b = ../f", "c:2: bridge.b: filter name '../f'"),
        ("[paths]\n# \0", "c:2: there is a NUL in this line; a configuration is text"),
        ("[paths]\nstate_dir = /x\0y", "c:2: there is a NUL in this line"),
        ("\0" * 9999, "c:1: there is a NUL in this line"),
        ("[defaults]\nbridge.br0 =", "c:2: bridge.br0 needs a filter's name"),
        ("[nftables]\ncounter = all", "c:2: unknown key 'counter'; did you mean 'counters'?"),
        ("[nftables]\ncounters = None", "c:2: counters = 'None' is not one of"),
        ("[nftables]\ntimeout_s = soon", "c:2: timeout_s = 'soon'"),
        ("[nftables]\ntimeout_s = 1e9", "c:2: timeout_s = '1e9'"),
        ("[paths\nstate_dir = /x", "c:1: '[paths' is neither [section] nor key = value"),
        ("{json: 1}", "c:1: '{json: 1}' is neither"),
        ("[paths]\nstate_dir = /x\x1b[2J\n[oops]", "c:3: unknown section '[oops]'"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    """A wrong section, key or value is an error with file and line, and what would do."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "c")
    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()


def test_the_file_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NWFILTER_HOOK_CONF names the file; one that isn't there is an error then."""
    path = tmp_path / "c.conf"
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    with pytest.raises(ConfigError, match="no such file, named by NWFILTER_HOOK_CONF"):
        read_config()
    path.write_text("[nftables]\ncounters = none\n")
    assert read_config().counters == "none"


@pytest.mark.parametrize("how", ["a directory", "not text", "a circle", "a pipe", "a device", "huge", "no name"])
def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A file that can't be read is an error, not the defaults: those would filter less."""
    path = tmp_path / "c.conf"
    makers: dict[str, Callable[[], object]] = {
        "a directory": path.mkdir,
        "not text": lambda: path.write_bytes(b"[paths]\n\xff"),
        "a circle": lambda: path.symlink_to(path),
        "a pipe": lambda: os.mkfifo(path),
        "a device": lambda: path.symlink_to("/dev/zero"),
        "huge": lambda: path.write_text("# x\n" * 100_000),
        "no name": lambda: None,
    }
    makers[how]()
    monkeypatch.setenv(CONFIG_VARIABLE, "" if how == "no name" else str(path))
    with pytest.raises(ConfigError, match="NWFILTER_HOOK_CONF" if how == "no name" else str(path)):
        read_config()


@pytest.mark.parametrize("how", ["file", "directory"])
def test_a_file_that_others_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Whoever may write it, or put another into its place, would decide about every guest; more in test_trust."""
    path = tmp_path / "c.conf"
    path.write_text("")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    read_config()
    (path if how == "file" else tmp_path).chmod(0o777)
    with pytest.raises(ConfigError, match=rf"^{path} is not relied on: .*; chmod o-w "):
        read_config()


def test_without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a configuration file the defaults hold."""
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.setattr("nwfilter_hook.config.CONFIG_FILE", str(tmp_path / "none"))
    assert values(read_config()) == DEFAULTS


def test_the_stock_filters_of_a_checkout() -> None:
    """In a checkout the stock filters are the checkout's own."""
    assert stock_filters() == str(REPOSITORY / "filters")


def test_the_sample_file_shows_the_defaults() -> None:
    """The file that is installed sets nothing; each of its keys, put in force, is a key of ours with its default."""
    text = (REPOSITORY / "packaging" / "nwfilter-hook.conf").read_text()
    assert values(parse_config(text, "c")) == DEFAULTS
    keys = [
        line[1:] if line.startswith("#") and " = " in line and line[1] != " " else line for line in text.splitlines()
    ]
    found = values(parse_config("\n".join(keys), "c"))
    kinds = [(kind, pattern) for name in ("defaults", "floors") for kind, pattern, *_ in found.pop(name)]
    assert kinds == [("network", "default"), ("bridge", "br-*"), ("floor", "br-*")]
    assert found.pop("never") == (
        (4, 0xC0000201, 0xC0000201),
        (6, 0x20010DB8 << 96, (0x20010DB8 << 96) + (1 << 64) - 1),
    )
    assert [found.pop(f"guard_{key}") for key in ("bridges", "trusted", "allow")] == [
        ("br0", "br1"),
        ("eth0",),
        ("ovpn*", "tap-lab"),
    ]
    installed = ("/etc/nwfilter-hook/filters", "/usr/share/nwfilter-hook/filters")
    expected = {**DEFAULTS, "filter_dirs": installed}
    for key in ("defaults", "floors", "never", "guard_bridges", "guard_trusted", "guard_allow"):
        del expected[key]
    assert found == expected
