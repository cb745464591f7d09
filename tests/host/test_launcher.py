"""What stands in libvirt's hooks directory answers as each operation must, whatever became of the program behind it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.host import FILTER, GUEST, HOOK, NOT_XML, TAP, Ran, Sandbox, guest_xml
from tests.support.netns import REPOSITORY

pytestmark = pytest.mark.hook

LAUNCHER = REPOSITORY / "hooks" / "launch"
PLAIN = guest_xml(filter_name=None)
METADATA = PLAIN.replace("<metadata>", "<metadata><a xmlns='https://nwfilter-hook.org/xmlns/1'/>")


class Installed:
    """A copy of the program, and the launcher as it is installed for that copy."""

    def __init__(self, directory: Path) -> None:
        self.root = directory
        self.package = directory / "nwfilter_hook"
        self.program = directory / "hooks" / "qemu"
        shutil.copytree(REPOSITORY / "nwfilter_hook", self.package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(REPOSITORY / "filters", directory / "filters")
        self.program.parent.mkdir()
        shutil.copy(HOOK, self.program)
        self.list_files()
        self.launcher = directory / "50-nwfilter-hook"
        self.write_launcher()

    def list_files(self) -> None:
        """As `make install` does."""
        paths = sorted(self.package.rglob("*.py"))
        lines = [f"{path.stat().st_size} {path.relative_to(self.package)}\n" for path in paths]
        (self.package / "files").write_text("".join(lines))

    def write_launcher(self, python: str = "/usr/bin/python3") -> None:
        """As `make install` does, for another Python too."""
        text = re.sub("(?m)^program=.*", f"program={self.program}", LAUNCHER.read_text())
        self.launcher.write_text(re.sub("(?m)^python=.*", f"python={python}", text))
        self.launcher.chmod(0o755)

    def change(self, name: str, text: str) -> None:
        """A module is another one, and installed so."""
        (self.package / name).write_text(text)
        self.list_files()

    def cut(self, name: str, lines: int) -> None:
        """Only the first lines of a file have been copied."""
        path = self.root / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))

    def another_python(self, body: str) -> None:
        """The interpreter is something else."""
        path = self.root / "python3"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        self.write_launcher(str(path))


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    """The program, whole."""
    return Installed(tmp_path)


def _half(installed: Installed) -> None:
    for path in sorted(installed.package.rglob("*.py"))[::2]:
        path.unlink()


def _another_version(installed: Installed) -> None:
    path = installed.package / "operations" / "dispatch.py"
    path.write_text(path.read_text() + "# newer\n")


BREAKAGES: dict[str, Callable[[Installed], object]] = {
    "program-missing": lambda it: it.program.unlink(),
    "program-empty": lambda it: it.program.write_text(""),
    "program-cut-short": lambda it: it.cut("hooks/qemu", 13),
    "package-missing": lambda it: shutil.rmtree(it.package),
    "package-half-copied": _half,
    "hook-missing": lambda it: (it.package / "hook.py").unlink(),
    "hook-empty": lambda it: (it.package / "hook.py").write_text(""),
    "deep-module-missing": lambda it: (it.package / "base" / "errors.py").unlink(),
    "deep-module-empty": lambda it: (it.package / "operations" / "lifecycle.py").write_text(""),
    "deep-module-of-another-version": _another_version,
    "hook-misspelt": lambda it: it.change("hook.py", "def main(:\n"),
    "configuration-reader-misspelt": lambda it: it.change("config.py", "x = [\n"),
    "list-cut-short": lambda it: (it.package / "files").write_text("17"),
    "python-missing": lambda it: it.write_launcher("/usr/bin/python2.4"),
    "python-a-directory": lambda it: it.write_launcher("/usr"),
    "python-too-old": lambda it: it.another_python("echo 'SyntaxError: invalid syntax' >&2; exit 1"),
    "python-silent": lambda it: it.another_python("exit 0"),
    "python-crashes": lambda it: it.another_python("kill -SEGV $$"),
}


def call(box: Sandbox, installed: Installed, operation: str, xml: str = "") -> Ran:
    """One call of the launcher."""
    return box.hook(GUEST, operation, xml or guest_xml(), command=(installed.launcher,))


# --- when all is well -------------------------------------------------------------------------------------------------


def test_a_whole_program_is_only_started(box: Sandbox, installed: Installed) -> None:
    """A guest's life through the launcher: what the program answers and says is handed on, and nothing is added."""
    with box.unchanged():
        call(box, installed, "prepare").fine()
        refused = call(box, installed, "prepare", guest_xml(filter_name="no-such")).refused("no-such")
        assert refused == box.hook(GUEST, "prepare", guest_xml(filter_name="no-such")).refused()
        call(box, installed, "start", PLAIN).fine()
        call(box, installed, "start", NOT_XML).refused(GUEST)
    call(box, installed, "start").fine()
    assert box.in_force()
    box.nft_script(f"flush chain bridge nwfilter from/{TAP}\n")
    call(box, installed, "reconnect").excused("repaired")
    call(box, installed, "stopped", guest_xml(GUEST, None)).fine()
    box.assert_nothing_left()


def test_wrong_usage_is_told(box: Sandbox, installed: Installed) -> None:
    """Without an operation the program's own line comes out, and its status 2."""
    ran = box.run("sh", "-c", f"{installed.launcher} {GUEST} 2>&1; echo $?")
    assert re.fullmatch(r"usage: \S+ GUEST OPERATION .*\n2\n", ran)


# --- when it isn't ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_program_is_answered_for(box: Sandbox, installed: Installed, name: str) -> None:
    """A guest with a filter is refused in one line, one that runs is let be, one without a filter starts."""
    BREAKAGES[name](installed)
    box.configure("[defaults]\n# bridge.br0 = clean-traffic")
    with box.unchanged():
        line = call(box, installed, "start").refused(GUEST, "start", "install nwfilter-hook anew")
        assert re.search(r"can't run \(.+\)", line)
        call(box, installed, "reconnect").excused(GUEST, "reconnect", "stay as they are")
        call(box, installed, "start", PLAIN).excused(GUEST, "names no filter")


def test_each_operation_has_its_answer(box: Sandbox, installed: Installed) -> None:
    """Where libvirt can be told no it is; where a failure would kill a guest, or be of no use, the answer is 0."""
    box.running()
    shutil.rmtree(installed.package)
    with box.unchanged():
        for operation in ("prepare", "start", "attach", "migrate", "restore"):
            call(box, installed, operation).refused(GUEST, operation)
            call(box, installed, operation, METADATA).refused("is to have a filter")
            call(box, installed, operation, PLAIN).excused(GUEST, operation, "names no filter")
        for operation in ("reconnect", "started", "stopped", "release", "no-such-operation", ""):
            call(box, installed, operation).excused(GUEST, operation, "stay as they are")


@pytest.mark.parametrize(
    "default", ["[defaults]\nbridge.br0 = f", " [ defaults ]\n\n#x\n\tfloor.br0=f", "[defaults]\nx"]
)
def test_with_a_default_every_guest_wants_a_filter(box: Sandbox, installed: Installed, default: str) -> None:
    """Which interfaces a default is for, only the program could tell."""
    shutil.rmtree(installed.package)
    box.configure(default)
    call(box, installed, "start", PLAIN).refused("is to have a filter")


@pytest.mark.parametrize("kind", ["directory", "missing"])
def test_a_configuration_that_cant_be_read(box: Sandbox, installed: Installed, kind: str) -> None:
    """In doubt a guest wants a filter; without a configuration there are no defaults."""
    shutil.rmtree(installed.package)
    box.conf.unlink()
    if kind == "directory":
        box.conf.mkdir()
        call(box, installed, "start", PLAIN).refused()
    else:
        call(box, installed, "start", PLAIN).excused("names no filter")


@pytest.mark.parametrize("xml", ["", NOT_XML, "\0\0"])
def test_in_doubt_a_guest_wants_a_filter(box: Sandbox, installed: Installed, xml: str) -> None:
    """What isn't a domain tells nothing about filters."""
    shutil.rmtree(installed.package)
    call(box, installed, "start", xml or " ").refused("is to have a filter")


def test_no_module_can_be_cut_short_unnoticed(box: Sandbox, installed: Installed) -> None:
    """Whatever number of lines of the modules that every call runs through has been copied, no guest starts open."""
    for name in ("hooks/qemu", "nwfilter_hook/hook.py", "nwfilter_hook/operations/dispatch.py"):
        whole = (installed.root / name).read_text()
        for lines in range(0, len(whole.splitlines()), 7):
            installed.cut(name, lines)
            ran = call(box, installed, "start")
            assert ran.status == 1, (name, lines, ran)
            (installed.root / name).write_text(whole)
    call(box, installed, "start").fine()


def test_a_break_after_the_start_is_the_programs_to_tell(box: Sandbox, installed: Installed) -> None:
    """A module that fails when it is needed, though it is as installed, is a bug: its traceback comes out."""
    installed.change("operations/transaction.py", "1 / 0\n")
    with box.unchanged():
        for operation, status in (("start", 1), ("reconnect", 0)):
            ran = box.finish(box.begin(GUEST, operation, command=(installed.launcher,)), guest_xml())
            assert ran.status == status
            assert ran.lines[0].startswith("Traceback")
            assert ran.lines[-1] == f"nwfilter-hook: {GUEST}: division by zero"
        call(box, installed, "start", PLAIN).fine()


def test_the_guests_name_is_no_command(box: Sandbox, installed: Installed) -> None:
    """Names that a shell would do something with, and control characters, come out as text on one line."""
    shutil.rmtree(installed.package)
    for name in ("$(reboot)", "a b; exit 7", "-n", "%s%n", "a\nb\x1b[2J"):
        ran = box.finish(box.begin(name, "start", command=(installed.launcher,)), guest_xml())
        line = ran.refused()
        assert re.sub(r"[\n\x1b]", "", name) in line
        assert line.isprintable()


def test_a_filter_is_asked_for_in_a_large_domain(box: Sandbox, installed: Installed) -> None:
    """More than a pipe holds is read to its end, and the reference there is seen."""
    shutil.rmtree(installed.package)
    padding = f"<metadata><x>{'y' * 1_000_000}</x>"
    call(box, installed, "start", guest_xml(filter_name=FILTER).replace("<metadata>", padding)).refused()
    call(box, installed, "start", PLAIN.replace("<metadata>", padding)).excused("names no filter")
