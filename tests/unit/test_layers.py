"""The house, read from its folders: who imports whom, who starts processes, who writes files, what is pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "nwfilter_hook"
HOOK_SCRIPT = PACKAGE.parent / "hooks" / "qemu"

FLOORS = (
    {"__main__"},
    {"cli"},
    {"hook", "watch", "doctor"},
    {"operations"},
    {"host", "lint"},
    {"compiler", "nftables", "domain", "storage", "explain", "cases"},
    {"filters", "backend", "packets", "capabilities"},
    {"ruleset", "commits", "config", "guards", "messages", "libvirtd", "network"},
    {"base", "settings", "trust"},
    {"__init__"},
)
"""From the edge to the base; a room is a folder, or a module beside the folders."""
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    return module.split(".")[0]


def tree_of(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())


def foreign(tree: ast.AST) -> set[str]:
    """What is imported anywhere from outside of the package, by its first name."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0}
    return {name.split(".")[0] for name in names}


def ours(module: str) -> Iterator[str]:
    """The modules of the package that `module` imports, at its head or later."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            here = module.split(".")[: -node.level]
            parts = [*here, *(node.module or "").split(".")] if node.module else here
            name = ".".join(parts)
            if name in MODULES:
                yield name
            else:
                yield from (f"{name}.{alias.name}".lstrip(".") for alias in node.names)


def test_imports_run_down() -> None:
    """A room imports from lower floors, and from itself; neighbours on one floor don't know each other."""
    assert {room_of(module) for module in MODULES} == set(FLOOR_OF)
    assert len(FLOORS) <= 10
    wrong = {
        (module, name)
        for module in MODULES
        for name in ours(module)
        if room_of(name) != room_of(module) and FLOOR_OF.get(room_of(name), 9) <= FLOOR_OF[room_of(module)]
    }
    assert wrong == set()


def test_no_circles() -> None:
    """Within a room, too, no two modules import each other, however far round."""
    graph = {module: set(ours(module)) for module in MODULES}
    while graph:
        leaves = {module for module, names in graph.items() if not names & set(graph)}
        assert leaves, f"these import each other: {sorted(graph)}"
        graph = {module: names for module, names in graph.items() if module not in leaves}


def test_a_module_is_short() -> None:
    """Above 350 lines there is a second subject in it."""
    long = {module: len((PACKAGE / f"{module.replace('.', '/')}.py").read_text().splitlines()) for module in MODULES}
    assert {module: lines for module, lines in long.items() if lines > 350} == {}


def test_a_command_knows_no_other() -> None:
    """A command imports what commands share and the rooms below, never another command."""
    shared = {"cli.answers", "cli.common", "cli.complete", "cli.options", "cli.output"}
    commands = [module for module in MODULES if room_of(module) == "cli" and module not in shared]
    assert {name for module in commands for name in ours(module) if room_of(name) == "cli"} <= shared


def test_the_hooks_path() -> None:
    """Whatever the hook can come to import: no click, no rich, and no libvirt, whose daemon waits for the hook."""
    reached, todo = set[str](), ["hook"]
    while todo:
        module = todo.pop()
        if module not in reached and module in MODULES:
            reached.add(module)
            todo += ours(module)
    assert {"operations.lifecycle", "nftables.process", "storage.state"} <= reached
    found = {module: {"click", "rich", "libvirt"} & foreign(tree_of(module)) for module in reached}
    assert {module: names for module, names in found.items() if names} == {}
    assert not {module for module in reached if room_of(module) in ("cli", "libvirtd", "watch")}


@pytest.mark.parametrize("module", ["hook", "config"])
def test_the_way_to_nothing_is_short(module: str) -> None:
    """hook and config, which every call runs through, import os and sys at their head, all else when needed."""
    head = [node for node in tree_of(module).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert set.union(*map(foreign, head)) == {"__future__", "os", "sys"}
    assert not [node for node in head if isinstance(node, ast.ImportFrom) and node.level]


def test_the_hook_script_imports_the_hook_alone() -> None:
    """hooks/qemu is a way to find the package: all it takes from there is main."""
    found = [node for node in ast.walk(ast.parse(HOOK_SCRIPT.read_text())) if isinstance(node, ast.ImportFrom)]
    assert [(node.module, [alias.name for alias in node.names]) for node in found] == [("nwfilter_hook.hook", ["main"])]
    assert HOOK_SCRIPT.stat().st_mode & 0o111 == 0o111


def test_faces_are_empty() -> None:
    """A package's __init__ is a docstring and nothing else: one that imports costs every start."""
    faces = [module for module in MODULES if module.endswith(".__init__")]
    assert [module for module in faces if len(tree_of(module).body) != 1] == []


STARTS_PROCESSES = {"subprocess", "multiprocessing", "pty", "popen", "system", "fork", "forkpty", "posix_spawn"}


def test_one_module_starts_processes() -> None:
    """The back end's process.py starts processes; beside the hook's path remote.py starts ssh, private.py ip."""

    def starts(module: str) -> bool:
        tree = tree_of(module)
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        called = {name for name in called if name in STARTS_PROCESSES or name.startswith(("exec", "spawn"))}
        return bool(STARTS_PROCESSES & foreign(tree) or called)

    assert [module for module in MODULES if starts(module)] == ["network.private", "network.remote", "nftables.process"]


# of module os, of pathlib's paths, of shutil
WRITES = {
    *("replace", "rename", "renames", "unlink", "remove", "rmdir", "removedirs", "mkdir", "makedirs", "mkfifo"),
    *("mknod", "link", "symlink", "chmod", "chown", "lchown", "truncate", "ftruncate", "utime", "write", "pwrite"),
}
PATH_WRITES = {
    *("write_text", "write_bytes", "touch", "symlink_to", "hardlink_to", "rmtree", "copyfile", "mkdtemp", "mkstemp"),
}


def writes(module: str) -> bool:
    """Whether the module has a call that changes something on a disk."""
    for node in ast.walk(tree_of(module)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Attribute):
            of_os = isinstance(function.value, ast.Name) and function.value.id == "os"
            if function.attr in PATH_WRITES or (of_os and function.attr in WRITES):
                return True
        is_open = isinstance(function, ast.Name) and function.id == "open"
        modes = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        if is_open and any(isinstance(mode, ast.Constant) and set("wax+") & set(str(mode.value)) for mode in modes):
            return True
        if isinstance(function, ast.Attribute) and function.attr == "open" and "O_CREAT" in ast.dump(node):
            return True
    return False


def test_who_writes_files() -> None:
    """Storage writes; the command line a copy for the editor and results; a network of our own has its settings."""
    assert {module for module in MODULES if writes(module)} - {"cli.edit", "cli.common", "network.private"} <= {
        module for module in MODULES if room_of(module) == "storage"
    }


PURE_ROOMS = ("base", "ruleset", "filters", "domain", "compiler", "packets", "explain", "lint", "cases")
PURE_PARTS = ("names", "fields", "expressions", "sets", "script")
"""Of a back end."""
PURE = [
    module
    for module in MODULES
    if room_of(module) in PURE_ROOMS or (room_of(module) == "nftables" and module.split(".")[1] in PURE_PARTS)
]


@pytest.mark.parametrize("module", PURE)
def test_what_is_pure(module: str) -> None:
    """From XML to script nothing reads a file, a clock, the environment, or chance."""
    impure = {"os", "io", "pathlib", "time", "datetime", "random", "socket", "tempfile", "secrets", "glob", "shutil"}
    tree = tree_of(module)
    assert not impure & foreign(tree)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in ("open", "input", "print")]
