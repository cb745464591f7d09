"""What administrators, editors, disks and enemies put before `define`: one clear line, nothing half-done."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.host import STOCK, Sandbox, drop_udp, filter_xml, reference
from tests.support.netns import REPOSITORY

INJECTED = 'x" ; }; delete table bridge nwfilter; #'


# --- files to define --------------------------------------------------------------------------------------------------


def test_what_is_no_filter(library: Sandbox) -> None:
    """Refused with one line, by define and dry run alike; no file and no directory is made."""
    for xml, words in (
        ("<filter name='x'>\n<rule action='drop'", ":2: not well-formed"),
        (filter_xml("../../etc/x"), "'../../etc/x'"),
        (filter_xml("x", "", "<rul/>"), ":3: unknown element <rul>"),
    ):
        library.define(xml).refused(f"<stdin>{words}" if words[0] == ":" else words)
        library.define(xml, "--dry-run").refused("<stdin>:", words)
    assert library.files() == {}


def test_a_directory_that_others_may_write(library: Sandbox) -> None:
    """No filter is kept where others may put one, and none is taken from there; `list` says why."""
    library.define(filter_xml("mine", drop_udp(53))).fine()
    library.filters.chmod(0o777)
    refusal = (
        f"others may write: {library.filters} may be written by everybody (mode 0777); chmod o-w {library.filters}"
    )
    with library.unchanged():
        library.define(filter_xml("mine", drop_udp(67))).refused("filters are not kept where " + refusal)
        library.cli("dumpxml", "mine").refused("'mine' is not looked for where " + refusal)
    listed = library.cli("list")
    assert listed.status == 0
    assert "(broken)" in listed.out
    assert refusal in listed.err
    library.filters.chmod(0o755)
    library.define(filter_xml("mine", drop_udp(67))).fine()


def test_every_fault_is_told(library: Sandbox) -> None:
    """`define` lists all that is wrong with the file, a line each, and changes nothing."""
    xml = filter_xml("x", "<rule action='dorp' direction='in'><ip srpipaddr='1.2.3.4'/></rule>", drop_udp(70000))
    for options in ((), ("--dry-run",)):
        ran = library.define(xml, *options)
        assert (ran.status, ran.out) == (1, "")
        places = [line.split(": ")[1] for line in ran.err.splitlines() if line.startswith("nwfilter-hook: ")]
        assert places == ["<stdin>:2", "<stdin>:2", "<stdin>:3"]
    assert library.files() == {}


def test_what_is_no_file(library: Sandbox) -> None:
    """Missing, a directory, a device that never ends, a socket, a name with a line end."""
    library.cli("define", library.directory / "missing").refused("missing", "No such file")
    library.cli("define", library.directory).refused("Is a directory")
    library.cli("define", "/dev/zero").refused("/dev/zero:1", "larger than")
    library.cli("define", "/dev/null").refused("/dev/null:1", "empty")
    library.cli("define", "a\nb").refused("a\\nb")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(library.directory / "socket"))
        library.cli("define", library.directory / "socket").refused("socket")


@pytest.mark.netns
def test_comments_stay_comments(site: Sandbox) -> None:
    """Whatever is in a comment, none of it gets into the nft script as a statement."""
    quoted = INJECTED.replace('"', "&quot;")
    rule = f"<rule action='drop' direction='out'><ip comment=\"{quoted}&#10;flush ruleset\" protocol='udp'/></rule>"
    site.define(filter_xml("mine", f"<!-- {INJECTED} -->", rule)).fine()
    site.start("web", "vnet0", "mine")
    site.define(filter_xml("mine", f"<!-- {INJECTED}\nflush ruleset -->", rule, drop_udp(9))).fine()
    site.check()
    assert "drop" in site.rules()


# --- the directory ----------------------------------------------------------------------------------------------------


def test_files_that_are_nobodys_filter(library: Sandbox) -> None:
    """Editors' copies, packages' leftovers, other files and directories are neither listed nor in the way."""
    library.define(filter_xml("mine")).fine()
    for name in ("mine.xml~", ".mine.xml.swp", "#mine.xml#", ".#mine.xml", "mine.xml.dpkg-dist", "mine.xml.rpmsave",
                 "README", "4913", ".hidden.xml", ".xml", "mine.XML", "backup.xml.bak"):  # fmt: skip
        (library.filters / name).write_text("<filter name='evil'/>")
    (library.filters / "subdirectory").mkdir()
    ran = library.cli("list").fine()
    assert library.names(origin="local") == ["mine"]
    assert "evil" not in ran.out
    library.define(filter_xml("mine", drop_udp(9))).fine()
    library.cli("undefine", "mine").fine()
    assert library.names(origin="local") == []


@pytest.mark.parametrize("kind", ["name", "directory", "fifo", "dangling", "empty", "text", "huge", "loop"])
def test_files_that_can_not_be_used(library: Sandbox, kind: str) -> None:
    """Such a file is listed as broken and says why; the others work on; define or undefine mends it where it can."""
    library.define(filter_xml("good")).fine()
    path = library.filters / "bad.xml"
    make: dict[str, Callable[[], object]] = {
        "name": lambda: path.write_text(filter_xml("other")),
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "dangling": lambda: path.symlink_to("nowhere"),
        "empty": path.touch,
        "text": lambda: path.write_text("x"),
        "huge": lambda: path.write_bytes(b" " * (9 << 20)),
        "loop": lambda: path.symlink_to("bad.xml"),
    }
    make[kind]()
    ran = library.cli("list")
    assert ran.status == 0
    (line,) = [line for line in ran.out.splitlines() if " bad " in line]
    assert "(broken)" in line
    (problem,) = ran.err.splitlines()
    assert str(path) in problem
    assert {"good", "allow-arp"} <= set(library.names(problem=None))
    library.cli("dumpxml", "good").fine()
    if kind != "name":
        library.cli("dumpxml", "bad").refused("bad.xml")
    assert library.define(filter_xml("user", reference("bad"))).status == 0
    if kind == "directory":
        library.define(filter_xml("bad")).refused("bad.xml", "can't be replaced")
        assert list(library.filters.glob(".*")) == []
    else:
        library.define(filter_xml("bad")).fine()
        assert library.names(problem=None, origin="local") == ["bad", "good", "user"]
        library.cli("undefine", "bad")
        assert not path.exists()


def test_a_broken_file_can_be_undefined(library: Sandbox) -> None:
    """By the name of its file."""
    library.place("bad", "x")
    library.cli("undefine", "bad").fine()
    assert library.files() == {}


def test_a_link_to_nothing_hides_no_stock_filter_silently(library: Sandbox) -> None:
    """Whoever linked a filter of the same name meant another: it isn't replaced by the stock one."""
    library.write_filter("mine")
    (library.filters / "allow-arp.xml").symlink_to("/nowhere/allow-arp.xml")
    assert "allow-arp" not in library.names(problem=None)
    library.cli("dumpxml", "allow-arp").refused("allow-arp.xml")


def test_a_missing_directory_is_an_empty_one(library: Sandbox) -> None:
    """The first is made when something is defined; others may stay away."""
    library.configure(filter_dirs=[library.directory / "a" / "b", library.directory / "missing", STOCK])
    assert library.names(origin="local") == []
    library.define(filter_xml("mine")).fine()
    assert library.names(origin="local") == ["mine"]
    assert not (library.directory / "missing").exists()


def test_a_directory_that_is_a_file(library: Sandbox) -> None:
    """Nothing can be defined, and no filter is taken from behind it as if it weren't there."""
    library.filters.write_text("x")
    library.define(filter_xml("mine")).refused(str(library.filters))
    assert library.names(problem=None) == []
    assert library.cli("list").status == 0


@pytest.mark.netns
def test_a_directory_that_is_not_mine(able: None) -> None:
    """An unprivileged user can look at what is readable, and gets one line for what isn't."""
    with tempfile.TemporaryDirectory() as name:
        library = Sandbox(Path(name))
        library.directory.chmod(0o755)
        library.define(filter_xml("mine")).fine()
        with somebody_else():
            library.cli("dumpxml", "mine").fine()
            library.define(filter_xml("mine", drop_udp(9))).refused("state")
            library.cli("list").refused("Permission denied")
        library.filters.chmod(0o700)
        with somebody_else():
            library.cli("dumpxml", "mine").refused("mine")
            library.cli("dumpxml", "allow-arp").refused("allow-arp", "Permission denied")
        assert library.names(problem=None, origin="local") == ["mine"]


@contextmanager
def somebody_else() -> Iterator[None]:
    """Without root's rights meanwhile."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# --- disks ------------------------------------------------------------------------------------------------------------


def run_with_disk(site: Sandbox, directory: Path, options: str, before: str, arguments: str) -> str:
    """Run a command while `directory` is a file system of its own; what it and a look at the directory print."""
    wire = site.wire
    assert wire
    script = (
        f"mkdir -p '{directory}'; mkdir /run/kept-$$ && cp -a '{directory}/.' /run/kept-$$\n"
        f"mount -t tmpfs -o {options} tmpfs '{directory}'\ncp -a /run/kept-$$/. '{directory}'; rm -r /run/kept-$$\n"
        f"cd '{REPOSITORY}'; {before}\n"
        f"'{sys.executable}' -m nwfilter_hook {arguments} 2>&1 && echo status 0 || echo status $?\n"
        f"umask 077; find '{directory}' -type f ! -name fill -printf '%P\\n' | sort\n"
    )
    environment = {**os.environ, "NWFILTER_HOOK_CONF": str(site.conf)}
    return wire.run("unshare", "--mount", "sh", "-ec", script, environment=environment).stdout


FILL = "dd if=/dev/zero of='{}/fill' bs=1k 2>/dev/null || true"


@pytest.mark.netns
def test_a_full_disk_under_the_library(site: Sandbox) -> None:
    """The definition fails, the old one stays, nothing half-written lies beside it, the kernel is as it was."""
    site.define(filter_xml("mine", drop_udp(9))).fine()
    site.start("web", "vnet0", "mine")
    new = site.directory / "new.xml"
    new.write_text(filter_xml("mine", *[drop_udp(port) for port in range(3000)]))
    with site.unchanged():
        out = run_with_disk(site, site.filters, "size=64k", FILL.format(site.filters), f"define '{new}'")
    error, status, *files = out.splitlines()
    assert "No space left on device" in error
    assert status == "status 1"
    assert files == ["mine.xml"]
    site.check()


@pytest.mark.netns
def test_a_full_disk_under_the_records(site: Sandbox) -> None:
    """The same where the state directory is full."""
    site.define(filter_xml("mine", drop_udp(9))).fine()
    site.start("web", "vnet0", "mine")
    new = site.directory / "new.xml"
    new.write_text(filter_xml("mine", drop_udp(10)))
    before = sorted(path.name for path in (site.state_dir / "domains").iterdir())
    with site.unchanged():
        out = run_with_disk(site, site.state_dir, "size=64k", FILL.format(site.state_dir), f"define '{new}'")
    error, status, *files = out.splitlines()
    assert "No space left on device" in error
    assert status == "status 1"
    assert [file.split("/")[-1] for file in files if file.startswith("domains/")] == before
    site.check()


@pytest.mark.netns
def test_a_read_only_disk(site: Sandbox) -> None:
    """The message names the file that can't be written."""
    site.define(filter_xml("mine", drop_udp(9))).fine()
    site.start("web", "vnet0", "mine")
    new = site.directory / "new.xml"
    new.write_text(filter_xml("mine", drop_udp(10)))
    remount = f"mount -o remount,ro '{site.filters}'"
    with site.unchanged():
        out = run_with_disk(site, site.filters, "size=64k", remount, f"define '{new}'")
        out += run_with_disk(site, site.filters, "size=64k", remount, "undefine mine")
    assert out.count("status 1") == 2
    assert "Read-only file system" in out
    site.check()
