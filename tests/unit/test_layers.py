"""The layering of the package, read from its source: who imports whom, who starts processes, who writes files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "nwfilter_hook"
HOOK_SCRIPT = PACKAGE.parent / "hooks" / "qemu"

# From the edge to the base; a module imports from the rows below its own.
ROWS = (
    # edge: argv, stdin, exit status
    {"__main__"},
    {"cli"},
    {"cli_learning", "cli_library", "cli_sets"},
    {"cli_group", "cli_table"},
    {"hook"},
    # what an event or a command does
    {"bindings", "definitions", "show", "verify"},
    {"catalogue", "pipeline"},
    {"rebuild"},
    {"planning"},
    {"address_sets", "features", "teaching"},
    {"host"},
    # effects: filter files, the nft process, records
    {"library", "nft", "state"},
    # core: pure
    {"compiler", "domain_xml", "evaluator", "filter_format", "resolve"},
    {"filter_xml", "host_packets", "records", "render"},
    {"conditions", "learning", "render_rules"},
    {"objects"},
    {"frame", "language", "render_sets", "values", "xml"},
    # base
    {"config", "model"},
    {"ruleset"},
    {"errors"},
    {"__init__", "frozen"},
)
ROW_OF = {module: index for index, row in enumerate(ROWS) for module in row}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))
PURE = {module for row in ROWS[12:] for module in row} - {"config", "__init__"}


def tree_of(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere: ours as ".name", others by their first name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield f".{node.module.split('.')[0]}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f".{alias.name}" for alias in node.names if (PACKAGE / f"{alias.name}.py").exists())


def ours(module: str) -> set[str]:
    """The modules of the package that `module` imports, at its head or later."""
    return {name[1:] for name in imports(tree_of(module)) if name.startswith(".")} - {module}


def test_every_module_has_a_row() -> None:
    """A new module is given its place here, and one that is gone loses it."""
    assert set(MODULES) == set(ROW_OF)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_the_rows_below(module: str) -> None:
    """A module imports only from the rows below its own."""
    assert {name for name in ours(module) if ROW_OF[name] <= ROW_OF[module]} == set()


def test_the_hooks_path() -> None:
    """Whatever the hook can come to import: no click, no rich, and no libvirt, whose daemon waits for the hook."""
    reached, todo = set[str](), ["hook"]
    while todo:
        module = todo.pop()
        if module not in reached:
            reached.add(module)
            todo += ours(module)
    assert {"pipeline", "nft", "state", "render"} <= reached
    foreign = {module: {"click", "rich", "libvirt"}.intersection(imports(tree_of(module))) for module in reached}
    assert {module: names for module, names in foreign.items() if names} == {}
    assert not {module for module in reached if module.startswith("cli")}


@pytest.mark.parametrize("module", ["hook", "config"])
def test_the_way_to_nothing_is_short(module: str) -> None:
    """hook and config, which every call runs through, import os and sys at their head, all else when needed."""
    head = [node for node in tree_of(module).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert {name for node in head for name in imports(node)} == {"__future__", "os", "sys"}


def test_the_hook_script_imports_the_hook_alone() -> None:
    """hooks/qemu is a way to find the package: all it takes from there is main."""
    found = [node for node in ast.walk(ast.parse(HOOK_SCRIPT.read_text())) if isinstance(node, ast.ImportFrom)]
    assert [(node.module, [alias.name for alias in node.names]) for node in found] == [("nwfilter_hook.hook", ["main"])]
    assert HOOK_SCRIPT.stat().st_mode & 0o111 == 0o111


STARTS_PROCESSES = {"subprocess", "multiprocessing", "pty", "popen", "system", "fork", "forkpty", "posix_spawn"}


def test_one_module_starts_processes() -> None:
    """nft.py is the only module that starts a process."""

    def starts(module: str) -> bool:
        tree = tree_of(module)
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        called = {name for name in called if name in STARTS_PROCESSES or name.startswith(("exec", "spawn"))}
        return bool(STARTS_PROCESSES.intersection(imports(tree)) or called)

    assert [module for module in MODULES if starts(module)] == ["nft"]


# of module os, of pathlib's paths, of shutil
WRITES = {
    *(
        "replace",
        "rename",
        "renames",
        "unlink",
        "remove",
        "rmdir",
        "removedirs",
        "mkdir",
        "makedirs",
        "mkfifo",
        "mknod",
    ),
    *("link", "symlink", "chmod", "chown", "lchown", "truncate", "ftruncate", "utime", "write", "pwrite"),
}
PATH_WRITES = {
    "write_text",
    "write_bytes",
    "touch",
    "symlink_to",
    "hardlink_to",
    "rmtree",
    "copyfile",
    "mkdtemp",
    "mkstemp",
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
    """state.py alone writes under /run, library.py filter files, and the command line a copy for the editor."""
    assert {module for module in MODULES if writes(module)} == {"state", "library", "cli_library"}


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_is_pure(module: str) -> None:
    """From XML to script nothing reads a file, a clock, the environment, or chance."""
    impure = {"os", "io", "pathlib", "time", "datetime", "random", "socket", "tempfile", "secrets", "glob", "shutil"}
    tree = tree_of(module)
    assert not impure.intersection(imports(tree))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in ("open", "input", "print")]
