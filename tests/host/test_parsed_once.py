"""A filter is parsed once for a command or an event, however many steps look at it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from nwfilter_hook.filters import parse
from tests.support.host import Sandbox, drop_udp, filter_xml, reference

pytestmark = pytest.mark.netns


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often each file is parsed meanwhile, by the name of the file."""
    found: Counter[str] = Counter()
    real = parse.read_filter

    def read(data: bytes, path: str, faults: object) -> object:
        found[Path(path).name] += 1
        return real(data, path, faults)  # type: ignore[arg-type]

    with (
        mock.patch.object(parse, "read_filter", read),
        mock.patch("nwfilter_hook.operations.validate.read_filter", read),
    ):
        yield found


def test_every_command(site: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """define, edit, dumpxml, list, reload, undefine, and the start of a guest; none reads a file twice."""
    inner = filter_xml("inner", drop_udp(53))
    outer = filter_xml("outer", reference("inner"), reference("clean-traffic"))
    site.place("inner", inner)
    commands: dict[str, tuple[str, ...]] = {
        "define": ("define", "-"),
        "redefine": ("define", "-"),
        "define again": ("define", "-"),
        "dry run": ("define", "-", "--dry-run"),
        "edit": ("edit", "outer"),
        "dumpxml": ("dumpxml", "outer"),
        "list": ("list",),
        "reload": ("reload",),
        "undefine": ("undefine", "other"),
    }
    editor = site.directory / "editor"
    editor.write_text("#!/bin/sh\nsed -i s/other/inner/ $1\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setenv("TMPDIR", str(site.directory))
    site.write_filter("other", drop_udp(67))
    with counted() as found:
        site.define(outer).fine()
    assert set(found.values()) == {1}
    with counted() as found:
        site.start("web", "vnet0", "outer", [("IP", "10.0.0.1")])
    assert {"outer.xml", "inner.xml", "clean-traffic.xml"} <= set(found)
    assert set(found.values()) == {1}
    for name, command in commands.items():
        changed = outer.replace("inner", "other") if name in ("redefine", "define again") else outer
        with counted() as found:
            ran = site.cli(*command, stdin=changed if command[0] == "define" else "")
        if name != "undefine":
            assert ran.status == 0, ran
        if name == "edit":  # before, what was written, and once more: it may have changed while somebody wrote
            assert found.pop("outer.xml") == 3
        assert found, name
        assert set(found.values()) == {1}, (name, found)
    site.check()
