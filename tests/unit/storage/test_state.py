"""Records of running guests: written whole, read without trust, moved aside when they are of no use."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nwfilter_hook.backend import Installed, Object
from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.base.errors import StateError
from nwfilter_hook.ruleset.model import Attachment
from nwfilter_hook.storage.records import Binding, Record
from nwfilter_hook.storage.state import State

UUID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"

INSTALLED = Installed(
    "vnet0",
    (
        Object("shared", "bridge", "ipset/web", "{ type ipv4_addr; }"),
        Object("set", "bridge", "learned/vnet0", "{ type ipv4_addr; size 1; }", ("fe80::1",)),
        Object("chain", "bridge", "from/vnet0", "", ('drop comment "f:1"', "accept")),
        Object("chain", "bridge", "from/vnet0/arp-mac"),
        Object("element", "bridge", "from-guest-l2", '"vnet0"', ("jump from/vnet0",)),
    ),
)
BINDING = Binding(
    tap="vnet0",
    called="vnet0",
    mac="52:54:00:00:00:01",
    type="bridge",
    attachment=Attachment.BRIDGE_PORT,
    bridge="br0",
    carrier="filterref",
    filter="clean-traffic",
    parameters={"IP": ("192.0.2.1", "192.0.2.2")},
    index=7,
    installed=INSTALLED,
    fingerprint="f" * 64,
    quarantined=False,
)
RECORD = Record(
    guest="web\n01",
    uuid=UUID,
    operation="start",
    bindings=(BINDING,),
    stale=(Installed("vnet9", (Object("chain", "netdev", "from/vnet9"),), whole=False),),
)


@pytest.fixture
def reports() -> list[str]:
    """What was found wrong and worked around."""
    return []


@pytest.fixture
def state(tmp_path: Path, reports: list[str]) -> State:
    """A state directory with its lock held once, so that it is there."""
    found = State(str(tmp_path / "state"), reports.append)
    with found.locked():
        return found


def path_of(state: State, name: str = f"{UUID}.json") -> Path:
    return Path(state.path) / "domains" / name


def save(state: State, record: Record = RECORD) -> Path:
    """Write a record and let it come true."""
    state.write_pending(record)
    state.commit(record.uuid)
    return path_of(state, f"{record.uuid}.json")


# --- a record's life --------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(state: State) -> None:
    """Everything of a record comes back equal."""
    save(state)
    assert state.read(UUID) == RECORD
    assert state.records() == [RECORD]
    assert state.read(OTHER) is None


def test_a_record_too_large_is_refused_before_anything_is_done(state: State) -> None:
    """A record that is written can be read; one too large for that isn't written, so the guest doesn't start."""
    chain = Object("chain", "bridge", "from/vnet0", "", ('return comment "clean-traffic:15"',) * 50_000)
    bindings = tuple(replace(BINDING, installed=Installed("vnet0", (chain,) * 3)) for _ in range(2))
    large = replace(RECORD, bindings=bindings)
    with contextlib.suppress(StateError):
        save(state, large)
        assert state.read(UUID) == large


def test_a_pending_record_comes_true_or_not(state: State) -> None:
    """What is about to be done is written first; it replaces the record when it is done, or is dropped."""
    save(state)
    later = replace(RECORD, operation="reconnect")
    state.write_pending(later)
    assert (state.read(UUID), state.read_pending(UUID)) == (RECORD, later)
    state.drop_pending(UUID)
    assert (state.read(UUID), state.read_pending(UUID)) == (RECORD, None)
    state.write_pending(later)
    state.commit(UUID)
    assert (state.read(UUID), state.read_pending(UUID)) == (later, None)


def test_forgetting(state: State) -> None:
    """A guest is forgotten with all that is pending, and once more without harm."""
    save(state)
    state.write_pending(RECORD)
    state.delete(UUID)
    assert (state.read(UUID), state.read_pending(UUID)) == (None, None)
    state.delete(UUID)
    state.drop_pending(UUID)


def test_leftovers(state: State) -> None:
    """A guest that is gone, but whose chains are not, is kept apart until someone has cleaned up after it."""
    save(state)
    state.write_pending(replace(RECORD, operation="attach"))
    state.set_leftover(UUID)
    assert state.read(UUID) is None
    assert state.records() == []
    assert [(name, record.operation if record else None) for name, record in state.leftovers()] == [
        (f"{UUID}.json.leftover", "start"),
        (f"{UUID}.pending.leftover", "attach"),
    ]
    for name, _ in state.leftovers():
        state.delete_leftover(name)
    assert state.leftovers() == []


def test_records_by_name(state: State) -> None:
    """All records come sorted by guest name; what is pending is not among them."""
    save(state)
    save(state, replace(RECORD, guest="a", uuid=OTHER))
    state.write_pending(replace(RECORD, guest="0", uuid=OTHER))
    assert [record.guest for record in state.records()] == ["a", "web\n01"]


def test_taps_have_owners(state: State) -> None:
    """A tap's chains belong to one guest at a time."""
    assert state.owner("vnet0") is None
    state.set_owner("vnet0", UUID)
    state.set_owner("vnet0", OTHER)
    state.set_owner("vnet0.tmp", UUID)
    assert (state.owner("vnet0"), state.owner("vnet0.tmp")) == (OTHER, UUID)
    state.clear_owner("vnet0")
    state.clear_owner("vnet0")
    assert state.owner("vnet0") is None


@pytest.mark.parametrize("tap", ["../domains/x.json", "/etc/hostname", "..", ".", "a/b", "x" * 5000])
def test_a_tap_is_no_path(state: State, tap: str) -> None:
    """A tap's name, which comes from XML and may be anything for a tap without filter, is never taken for a path."""
    path_of(state, "x.json").write_text(OTHER)
    assert state.owner(tap) is None


# --- on the disk ------------------------------------------------------------------------------------------------------


def test_nobody_else_may_read(state: State) -> None:
    """Directories have mode 0700 and files 0600, whatever the umask; a directory with another mode gets it."""
    old = os.umask(0)
    try:
        path = save(state)
        state.set_owner("vnet0", UUID)
        os.chmod(state.path, 0o777)
        with state.locked():
            pass
    finally:
        os.umask(old)
    modes = {each: stat.S_IMODE(each.stat().st_mode) for each in [Path(state.path), *Path(state.path).rglob("*")]}
    assert path in modes
    for each, mode in modes.items():
        assert mode == (0o700 if each.is_dir() else 0o600), each


def test_a_record_is_whole_or_not_there(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old record, no half of the new one, and says so."""
    save(state)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for call in ("replace", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(StateError, match="can't be written: No space left on device"):
                state.write_pending(replace(RECORD, operation="attach"))
        assert state.read(UUID) == RECORD
        assert sorted(os.listdir(path_of(state).parent)) == [f"{UUID}.json"]


def test_what_a_killed_writer_left_is_no_hindrance(state: State) -> None:
    """A file half written by a process that was killed is overwritten, never followed, never taken for a record."""
    leftover, link = path_of(state, f"~{UUID}.pending"), path_of(state, f"~{OTHER}.pending")
    leftover.write_text("{")
    link.symlink_to("/nonexistent")
    assert state.records() == []
    save(state)
    save(state, replace(RECORD, uuid=OTHER))
    assert len(state.records()) == 2
    assert not leftover.exists()
    assert not link.is_symlink()
    leftover.write_text("{")
    state.drop_temporaries()
    assert not leftover.exists()


WRONG: dict[str, Callable[[dict[str, object]], object]] = {
    "another schema": lambda record: {**record, "schema": 3},
    "no schema": lambda record: {key: value for key, value in record.items() if key != "schema"},
    "no guest": lambda record: {key: value for key, value in record.items() if key != "guest"},
    "guest a number": lambda record: {**record, "guest": 5},
    "bindings a number": lambda record: {**record, "bindings": 5},
    "no bindings": lambda record: {key: value for key, value in record.items() if key != "bindings"},
    "bindings null": lambda record: {**record, "bindings": None},
    "no uuid": lambda record: {**record, "uuid": ""},
    "a path": lambda record: {**record, "uuid": f"../{UUID}"},
    "something more": lambda record: {**record, "digest": ""},
    "a list": lambda record: [record],
    "null": lambda _: None,
    "another guest": lambda record: {**record, "uuid": OTHER},
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_record_is_moved_aside(state: State, reports: list[str], how: str) -> None:
    """A record that isn't what was written is moved aside and reported, once, and is as if it weren't there."""
    path = save(state)
    path.write_text(json.dumps(WRONG[how](json.loads(path.read_text()))))
    assert state.read(UUID) is None
    assert state.records() == []
    (kept,) = (Path(state.path) / "unreadable").iterdir()
    assert kept.name.startswith(f"{UUID}.json.")
    (report,) = reports
    assert report.startswith(f"{path}: it ")
    assert report.endswith(f"; moved to {kept}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tap", 5),
        ("tap", "vnet1"),
        ("attachment", "none"),
        ("index", "7"),
        ("quarantined", 1),
        ("parameters", {"IP": "192.0.2.1"}),
        ("installed", {"tap": "vnet0", "objects": []}),
    ],
)
def test_a_binding_is_what_was_written(state: State, reports: list[str], key: str, value: object) -> None:
    """A record with something else in a field, or with another tap's things, is not trusted."""
    path = save(state)
    record = json.loads(path.read_text())
    record["bindings"][0][key] = value
    path.write_text(json.dumps(record))
    assert state.read(UUID) is None
    assert len(reports) == 1


@pytest.mark.parametrize(
    ("kind", "name", "definition"),
    [
        ("chain", "from/vnet1", ""),
        ("chain", "from/vnet00", ""),
        ("chain", "l2-prerouting", ""),
        ("chain", "from/vnet0; flush ruleset", ""),
        ("chain", "from/vnet0/\nflush ruleset", ""),
        ("chain", "from/vnet0", "{}\nflush ruleset"),
        ("chain", 5, ""),
        ("set", "learned/vnet1", ""),
        ("set", "ipset/precious", ""),
        ("map", "leased/vnet1/address", ""),
        ("table", "nwfilter", ""),
        ("element", "from-guest-l2", '"vnet1"'),
    ],
)
def test_a_record_names_only_its_own(
    state: State, reports: list[str], kind: str, name: object, definition: str
) -> None:
    """A record that names what is another tap's, or nobody's, is not trusted: it can delete nothing."""
    path = save(state)
    record = json.loads(path.read_text())
    for installed in (record["bindings"][0]["installed"], {**record["stale"][0], "tap": "vnet0"}):
        damaged = json.loads(json.dumps(record))
        thing = {"kind": kind, "table": "bridge", "name": name, "definition": definition, "content": ["x"]}
        damaged["bindings"][0]["installed"] = {**installed, "objects": [thing]}
        path.write_text(json.dumps(damaged))
        assert state.read(UUID) is None
    assert len(reports) == 2


def test_a_record_of_the_schema_before(state: State) -> None:
    """Its names are known, its rules aren't."""
    data = Path(__file__).parents[2] / "data" / "records" / "schema-1.json"
    path = path_of(state, "aaaaaaaa-2222-3333-4444-555555555555.json")
    path.write_bytes(data.read_bytes())
    (record,) = state.records()
    (installed,) = record.installed()
    assert (installed.whole, installed.names("chain")) == (False, ("from/vnet0", "from/vnet0/mac-old", "to/vnet0"))
    assert (record.bindings[0].filter, record.bindings[0].index) == ("both", None)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, bytes(4096), b"0" * 5_000_000])
def test_a_damaged_record(state: State, reports: list[str], data: bytes) -> None:
    """A record cut short, empty, not text, nested without end or huge is moved aside."""
    save(state).write_bytes(data)
    assert state.read(UUID) is None
    assert len(reports) == 1


def test_a_record_that_is_no_file(state: State, reports: list[str]) -> None:
    """Symbolic links, directories and pipes in a record's place are moved aside; none is followed or waited for."""
    target = save(state).rename(path_of(state).with_name("elsewhere"))
    makers: list[Callable[[Path], None]] = [lambda path: path.symlink_to(target), Path.mkdir, os.mkfifo]
    makers += [lambda path: path.symlink_to("/nowhere"), lambda path: (path / "x").mkdir(parents=True)]
    for number, make in enumerate(makers):
        make(path_of(state))
        assert state.read(UUID) is None
        assert len(reports) == number + 1
    assert "symbolic link" in reports[0]


def test_a_record_of_someone_else(state: State, reports: list[str]) -> None:
    """A record that belongs to another user is moved aside."""
    path = save(state)
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    os.chown(path, 12345, 12345)
    assert state.read(UUID) is None
    assert "belongs to user 12345" in reports[0]


def test_looking_changes_nothing(state: State, tmp_path: Path) -> None:
    """A state opened for looking reports what is wrong and moves and writes nothing."""
    path = save(state)
    path.write_text("{")
    reports: list[str] = []
    looking = State(state.path, reports.append, readonly=True)
    assert looking.records() == []
    assert path.exists()
    assert len(reports) == 1
    looking.write_capabilities({"ct": True})
    assert looking.read_capabilities() == {}
    nothing = State(str(tmp_path / "none"), reports.append, readonly=True)
    assert nothing.records() == []
    assert not (tmp_path / "none").exists()


# --- the directory ----------------------------------------------------------------------------------------------------


def test_a_directory_that_is_not_ours(tmp_path: Path) -> None:
    """A state directory that is a link, a file, or someone else's is refused with a message that names it."""
    real, link, file, foreign = (tmp_path / name for name in ("real", "link", "file", "foreign"))
    real.mkdir()
    foreign.mkdir()
    link.symlink_to(real)
    file.write_text("")
    refused = [(link, "is not a directory"), (file, "is not a directory|Not a directory|File exists")]
    if os.geteuid() == 0:
        os.chown(foreign, 12345, 12345)
        refused.append((foreign, "belongs to user 12345"))
    for path, message in refused:
        with pytest.raises(StateError, match=f"{path}.*({message})"), State(str(path), print).locked():
            pass


def test_a_missing_directory_is_empty(tmp_path: Path) -> None:
    """Before the first guest there is no state directory and no record; the lock makes it."""
    state = State(str(tmp_path / "a" / "b"), print)
    assert state.records() == []
    assert state.leftovers() == []
    with state.locked():
        assert (tmp_path / "a" / "b" / "domains").is_dir()


def test_the_lock_is_one(state: State) -> None:
    """While one holds the lock another waits; when it takes too long, that is said with the lock's name."""
    order = []
    taken = threading.Event()

    def holder() -> None:
        with state.locked():
            taken.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=holder)
    thread.start()
    taken.wait()
    with pytest.raises(StateError, match=r"/lock is held by another nwfilter-hook for 0.05 s"), state.locked(0.05):
        order.append("never")
    with state.locked(10):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_who_waits_for_the_lock_stands_in_the_queue(state: State) -> None:
    """The kernel wakes him: nobody asks again and again. Who gave up doesn't keep the lock from others."""
    with state.locked():
        inode = os.stat(os.path.join(state.path, "lock")).st_ino
        threads = [threading.Thread(target=_take, args=(state.path, wait_s)) for wait_s in (0.2, 30, 30)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while len(re.findall(rf"-> FLOCK .*:{inode} ", Path("/proc/locks").read_text())) < len(threads):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        threads[0].join()
    for thread in threads:
        thread.join()
    with state.locked(10):
        pass


def _take(path: str, wait_s: float) -> None:
    with contextlib.suppress(StateError), State(path, print).locked(wait_s):
        pass


def test_the_lock_is_free_after_a_failure(state: State) -> None:
    """A failure under the lock sets it free."""
    with pytest.raises(ZeroDivisionError), state.locked():
        raise ZeroDivisionError
    with state.locked(0):
        pass


# --- capabilities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "[]", "{", "5", "\xff"])
def test_capabilities(state: State, text: str) -> None:
    """What the kernel can do is remembered; what can't be read is found out again."""
    path = Path(state.path) / "capabilities.json"
    state.write_capabilities({"ct": True})
    assert state.read_capabilities() == {"ct": True}
    path.write_text(text, encoding="latin-1")
    assert state.read_capabilities() == {}


def test_a_journal(state: State) -> None:
    """An update of filters that has begun is known until it has ended."""
    assert state.read_journal() is None
    state.write_journal("/etc/nwfilter-hook/filters/.x.xml.new")
    assert state.read_journal() == "/etc/nwfilter-hook/filters/.x.xml.new"
    assert state.records() == []
    state.delete_journal()
    assert state.read_journal() is None
