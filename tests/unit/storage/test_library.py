"""The filter library: where a filter comes from, and what is said if it doesn't."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nwfilter_hook.base.errors import FilterSyntaxError, InputError, Source, UnknownFilter, XmlSyntaxError
from nwfilter_hook.base.xml import MAX_BYTES
from nwfilter_hook.storage.library import Library

WANTED = Source("domain.xml", 7)


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    """The administrator's directory and that of the stock filters."""
    own, stock = tmp_path / "own", tmp_path / "stock"
    own.mkdir()
    stock.mkdir()
    return own, stock


def write(directory: Path, name: str, text: str | None = None) -> Path:
    """A file with a filter of that name."""
    path = directory / f"{name}.xml"
    path.write_text(f"<filter name='{name}'/>" if text is None else text)
    return path


def library(*directories: Path) -> Library:
    return Library([str(directory) for directory in directories])


def test_the_first_directory_wins(directories: tuple[Path, Path]) -> None:
    """A filter is read from the first directory that has it."""
    own, stock = directories
    write(stock, "a")
    write(stock, "b")
    path = write(own, "b")
    assert library(own, stock).read("a", WANTED).source.path == str(stock / "a.xml")
    assert library(own, stock).read("b", WANTED).source.path == str(path)
    assert library(own, stock).names() == ["a", "b"]


def test_a_wrong_file_is_not_passed_over(directories: tuple[Path, Path]) -> None:
    """A file of the administrator's that is wrong is an error; the stock filter doesn't stand in for it."""
    own, stock = directories
    write(stock, "a")
    write(own, "a", "<filter name='a'>")
    with pytest.raises(XmlSyntaxError, match=r"own/a.xml:1: not well-formed"):
        library(own, stock).read("a", WANTED)


def test_a_file_holds_the_filter_it_is_named_after(directories: tuple[Path, Path]) -> None:
    """A file with a filter of another name is an error that shows both names."""
    own, _ = directories
    write(own, "a", "<filter name='b'/>")
    with pytest.raises(FilterSyntaxError, match=r"a.xml:1: this file must hold filter 'a', it holds 'b'"):
        library(own).read("a", WANTED)


def test_an_unknown_filter(directories: tuple[Path, Path]) -> None:
    """The error names the place that wants the filter, where it was looked for, and the nearest name there is."""
    own, stock = directories
    write(stock, "clean-traffic")
    with pytest.raises(UnknownFilter) as caught:
        library(own, stock).read("clean-trafic", WANTED)
    assert (
        str(caught.value) == f"domain.xml:7: no filter 'clean-trafic' in {own}:{stock}; did you mean 'clean-traffic'?"
    )
    with pytest.raises(UnknownFilter, match=r"put zzz.xml there"):
        library(own, stock).read("zzz", WANTED)


def test_a_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    """The administrator's directory may be missing."""
    write(tmp_path, "a")
    assert library(tmp_path / "no", tmp_path).read("a", WANTED).name == "a"
    assert library(tmp_path / "no").names() == []


def test_a_filter_that_cannot_be_read(directories: tuple[Path, Path]) -> None:
    """A filter that is there and can't be read is an error that names the file; the next directory isn't asked."""
    own, stock = directories
    (own / "a.xml").mkdir()
    write(stock, "a")
    with pytest.raises(UnknownFilter, match=r"^domain.xml:7: filter 'a' can't be read: Is a directory: .*own/a.xml"):
        library(own, stock).read("a", WANTED)


@pytest.mark.parametrize("kind", ["dangling", "circle", "pipe", "socket", "empty", "passwd", "device"])
def test_a_file_that_is_none(directories: tuple[Path, Path], kind: str) -> None:
    """Nor does it hide what the administrator meant, nor hang, nor tell what is in somebody else's file."""
    own, stock = directories
    write(stock, "a")
    path = own / "a.xml"
    targets = {"dangling": "/nowhere", "circle": str(path), "passwd": "/etc/passwd", "device": "/dev/zero"}
    if kind in targets:
        path.symlink_to(targets[kind])
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    with pytest.raises(InputError, match=r"a\.xml|/dev/zero may be written") as caught:
        library(own, stock).read("a", WANTED)
    assert "root:" not in str(caught.value)


def test_a_huge_file_is_not_read_to_its_end(directories: tuple[Path, Path]) -> None:
    """A file larger than what is accepted is refused, whatever its length."""
    own, _ = directories
    path = write(own, "a")
    os.truncate(path, MAX_BYTES * 1000)
    with pytest.raises(XmlSyntaxError, match="larger than"):
        library(own).read("a", WANTED)


def test_a_file_is_read_once(directories: tuple[Path, Path]) -> None:
    """What has been read stays as it was while the library lives."""
    own, _ = directories
    path = write(own, "a")
    found = library(own)
    first = found.read("a", WANTED)
    path.unlink()
    assert found.read("a", WANTED) is first


@pytest.mark.parametrize("change", ["a", "b", "in vain"])
def test_whether_any_file_has_changed(directories: tuple[Path, Path], change: str) -> None:
    """One of those that were read, or that weren't where they were looked for first."""
    own, stock = directories
    write(own, "a"), write(stock, "b")
    found = library(own, stock)
    for name in ("a", "b"):
        found.read(name, WANTED)
    assert found.is_current()
    name, directory = {"a": ("a", own), "b": ("b", stock), "in vain": ("b", own)}[change]
    write(directory, name, f"<filter name='{name}'></filter>")
    assert not found.is_current()


STOCK = Path(__file__).parents[3] / "filters"
NAMES = [
    "allow-arp",
    "allow-dhcp",
    "allow-dhcp-server",
    "allow-dhcpv6",
    "allow-dhcpv6-server",
    "allow-incoming-ipv4",
    "allow-incoming-ipv6",
    "allow-ipv4",
    "allow-ipv6",
    "clean-traffic",
    "clean-traffic-gateway",
    "no-arp-ip-spoofing",
    "no-arp-mac-spoofing",
    "no-arp-spoofing",
    "no-ip-multicast",
    "no-ip-spoofing",
    "no-ipv6-multicast",
    "no-ipv6-spoofing",
    "no-mac-broadcast",
    "no-mac-spoofing",
    "no-other-l2-traffic",
    "no-other-rarp-traffic",
    "qemu-announce-self",
    "qemu-announce-self-rarp",
]


def test_the_stock_filters() -> None:
    """There are the 24 stock filters of libvirt, and perhaps others; each has a UUID of its own."""
    stock = library(STOCK)
    names = stock.names()
    assert len(NAMES) == 24
    assert set(NAMES) <= set(names)
    uuids = {stock.read(name, WANTED).uuid for name in names}
    assert len(uuids) == len(names)
    assert None not in uuids
