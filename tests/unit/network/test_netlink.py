"""Messages of the kernel, taken apart; whatever is in them."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwfilter_hook.network import netlink as module
from nwfilter_hook.network.links import parse_link
from nwfilter_hook.network.netlink import Message, Netlink, attribute, attribute_list, attributes, number, text
from nwfilter_hook.network.tables import (
    DeviceChain,
    Devices,
    Flowtable,
    list_detours,
    list_device_chains,
    list_flowtables,
)
from nwfilter_hook.network.traffic_control import Action, parse_filter


class FakeSocket:
    """A kernel that answers each question with the next of some answers: (type, flags, payload) of each message."""

    def __init__(self, *answers: list[tuple[int, int, bytes]]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[int, bytes]] = []

    def sendto(self, data: bytes, _: object) -> None:
        kind, _, self._sequence = struct.unpack_from("=HHI", data, 4)
        self.asked.append((kind, data[16:]))

    def recvmsg(self, _: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        messages = self._answers.pop(0)
        packed = b""
        for kind, flags, payload in messages:
            packed += struct.pack("=IHHII", 16 + len(payload), kind, flags, self._sequence, 0) + payload
            packed += bytes(-len(packed) % 4)
        return packed, [], 0, (0, 0)

    def close(self) -> None:
        """Nothing to do."""


DONE = (3, 2, bytes(4))


def fake(monkeypatch: pytest.MonkeyPatch, *answers: list[tuple[int, int, bytes]]) -> Netlink:
    """A socket to such a kernel."""
    netlink = Netlink(module.ROUTE)
    netlink.__exit__()
    monkeypatch.setattr(netlink, "_socket", FakeSocket(*answers))
    return netlink


def test_an_answer_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of several reads, until the kernel says that it is done; without those that do nothing."""
    netlink = fake(monkeypatch, [(20, 2, b"a"), (1, 2, b"")], [(20, 2, b"bcdef"), DONE])
    assert netlink.ask(22, b"?", dump=True) == [Message(20, b"a"), Message(20, b"bcdef")]


def test_what_changed_meanwhile_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted dump is not the truth."""
    changed = [(20, 0x12, b"old"), DONE]
    netlink = fake(monkeypatch, changed, changed, [(20, 2, b"new"), DONE])
    assert netlink.ask(22, b"", dump=True) == [Message(20, b"new")]
    with pytest.raises(module.Interrupted, match="message 22: changed while it was listed"):
        fake(monkeypatch, *[changed] * 9).ask(22, b"", dump=True)


@pytest.mark.parametrize("kind", [2, 3])
def test_a_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    """The kernel's errno, in an answer of its own or at the end of a dump."""
    with pytest.raises(OSError, match=r"\[Errno 95\]"):
        fake(monkeypatch, [(kind, 2, struct.pack("=i", -errno.EOPNOTSUPP))]).ask(22, b"", dump=True)


def test_attributes_as_they_are_written() -> None:
    """Padded to four octets, without the flags in their types."""
    data = attribute(1, b"vnet0\0") + attribute(2 | 0x8000, attribute(3, b"x"))
    assert len(data) % 4 == 0
    assert attributes(data) == {1: b"vnet0\0", 2: attribute(3, b"x")}
    assert next(iter(attribute_list(b"\0" * 8 + data, 8))) == (1, b"vnet0\0")
    assert text(b"vnet0\0junk") == "vnet0"
    assert (number(struct.pack("=I", 7)), number(b"\0\0\0\7", network_order=True), number(b"")) == (7, 7, 0)


@given(st.binary(max_size=200))
def test_anything_is_taken_apart(data: bytes) -> None:
    """Whatever bytes come, nothing fails and nothing is read beyond them."""
    assert sum(len(value) + 4 for _, value in attribute_list(data)) <= len(data)
    parse_link(Message(16, bytes(16) + data))
    parse_filter(Message(44, bytes(20) + data), 1)


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        (1, Action("redirect", 9, sends=True)),
        (2, Action("mirror", 9, sends=True)),
        (3, Action("redirect", 9)),
        (4, Action("mirror", 9)),
        (5, Action("mirred")),
    ],
)
def test_what_mirred_does(does: int, expected: Action) -> None:
    """Redirect or copy, out or in; what isn't known keeps its name."""
    parameters = struct.pack("=20xii", does, 9)
    action = attribute(1, attribute(1, b"mirred\0") + attribute(2, attribute(2, parameters)))
    head = struct.pack("=BxxxiIII", 0, 2, 1, 0, 49152 << 16)
    message = Message(44, head + attribute(1, b"matchall\0") + attribute(2, attribute(2, action)))
    found = parse_filter(message, 2)
    assert found
    assert (found.actions, found.preference, found.device) == ((expected,), 49152, 2)


def test_a_filter_in_hardware() -> None:
    """skip_sw, or in_hw; of a kind that isn't known, no actions are."""
    head = struct.pack("=BxxxiIII", 0, 2, 1, 0, 0)
    for flags, expected in ((0, False), (1, False), (2, True), (4, True), (8, False)):
        options = attribute(2, attribute(22, struct.pack("=I", flags)))
        found = parse_filter(Message(44, head + attribute(1, b"flower\0") + options), 2)
        assert found
        assert found.hardware is expected
    unknown = parse_filter(Message(44, head + attribute(1, b"new\0") + attribute(2, attribute(7, b""))), 2)
    assert unknown
    assert unknown.actions is None


def nf(family: int, *parts: bytes) -> tuple[int, int, bytes]:
    """A message of nftables."""
    return 10 << 8, 2, struct.pack(">BBH", family, 0, 0) + b"".join(parts)


def test_flowtables_with_wildcards_and_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices by name and, from kernel 6.17 on, by prefix."""
    devices = attribute(1, b"eth0\0") + attribute(2, b"vnet\0")
    hook = attribute(3, attribute(3, devices))
    table = nf(1, attribute(1, b"f\0"), attribute(2, b"ft\0"), hook, attribute(7, b"\0\0\0\1"))
    found = list_flowtables(fake(monkeypatch, [table, DONE]))
    assert found == [Flowtable("inet", "f", "ft", Devices(("eth0",), ("vnet",)), hardware=True)]
    assert [found[0].devices.include(name) for name in ("eth0", "vnet7", "eth", "tap")] == [True, True, False, False]
    assert list_flowtables(fake(monkeypatch, [(2, 0, struct.pack("=i", -errno.EOPNOTSUPP))])) == []


def test_chains_on_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one device or several; a chain without is none."""
    one = nf(5, attribute(1, b"x\0"), attribute(4, attribute(3, b"vnet0\0")))
    several = nf(5, attribute(1, b"y\0"), attribute(4, attribute(4, attribute(1, b"a\0") + attribute(1, b"b\0"))))
    none = nf(5, attribute(1, b"z\0"))
    netlink = fake(monkeypatch, [DONE], [one, several, none, DONE])
    assert list_device_chains(netlink) == [
        DeviceChain(5, "x", Devices(("vnet0",))),
        DeviceChain(5, "y", Devices(("a", "b"))),
    ]


def test_statements_that_send_frames_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta broute set` has no tool here that writes it; reading a meta key, or setting another, is none of them."""

    def expression(name: bytes, *data: bytes) -> bytes:
        return attribute(1, attribute(1, name + b"\0") + attribute(2, b"".join(data)))

    key, source = attribute(2, b"\0\0\0\x23"), attribute(3, b"\0\0\0\1")
    rules = {
        "broute": expression(b"meta", key, source),
        "": expression(b"meta", key) + expression(b"meta", attribute(2, b"\0\0\0\3"), source) + expression(b"counter"),
        "fwd": expression(b"fwd"),
        "dup": expression(b"immediate") + expression(b"dup"),
    }
    for expected, expressions in rules.items():
        netlink = fake(monkeypatch, [nf(7, attribute(1, b"t\0"), attribute(4, expressions)), DONE])
        assert list_detours(netlink, 7, "t") == frozenset({expected} - {""})


def test_only_the_kernel_is_believed() -> None:
    """What another process sends to our socket is passed over."""
    with Netlink(module.ROUTE) as netlink:
        port = netlink._socket.getsockname()[0]
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, module.ROUTE) as stranger:
            try:
                stranger.sendto(struct.pack("=IHHII", 20, 3, 2, 1, 0) + bytes(4), (port, 0))
            except PermissionError:
                pytest.skip("only root can send to another's socket")
        assert netlink.events() == []
