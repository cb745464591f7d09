"""The command line: what it prints, to whom, and its exit status."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nwfilter_hook.base.errors import NwfilterHookError
from nwfilter_hook.cli import main as cli
from nwfilter_hook.cli.main import cli as group
from tests.unit.compiling import filter_xml, rule_xml
from tests.unit.fake_backend import FakeBackend

UUID = "11111111-2222-3333-4444-555555555555"
DOMAIN = f"""<domain type='kvm'><name>web</name><uuid>{UUID}</uuid><devices><interface type='bridge'>
<mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='vnet0'/>
<filterref filter='mine'><parameter name='PORT' value='22'/><parameter name='PORT' value='80'/></filterref>
</interface></devices></domain>"""
MINE = filter_xml(rule_xml("<ip protocol='tcp' dstportstart='$PORT'/>"), rule_xml("<arp/>"), name="mine")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration, a filter `mine` and a domain.xml, which is the working directory."""
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "mine.xml").write_text(MINE)
    (tmp_path / "domain.xml").write_text(DOMAIN)
    (tmp_path / "c.conf").write_text(
        f"[paths]\nstate_dir = {tmp_path}/state\nfilter_dirs = {tmp_path}/filters\n[nftables]\nnft = {tmp_path}/nft\n"
    )
    monkeypatch.setenv("NWFILTER_HOOK_CONF", str(tmp_path / "c.conf"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """A back end that keeps books, in the place of every process's own."""
    backend = FakeBackend()
    monkeypatch.setattr("nwfilter_hook.host.NftBackend", lambda *arguments: backend)
    return backend


def run(*arguments: str, stdin: str = "") -> Result:
    """The command with `arguments`, as the shell would run it: an error of ours is a line on stderr and status 1."""
    # click before 8.2, which Debian 13 has, takes both streams for one unless told
    apart: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    result = CliRunner(**apart).invoke(group, arguments, input=stdin)
    if isinstance(result.exception, NwfilterHookError):
        return result
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refused(*arguments: str, stdin: str = "") -> str:
    """What is said against wrong usage, exit status 2."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 2
    assert result.stdout == ""
    return result.stderr


def failed(*arguments: str) -> str:
    """The error that a command ends with, exit status 1."""
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    return str(result.exception)


# --- as a process would see it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "stderr"),
    [
        (["validate", "filters/mine.xml"], 0, ""),
        (
            ["compile", "--filter", "gone", "--tap", "t", "--mac", "2:0:0:0:0:1"],
            1,
            "nwfilter-hook: --filter: no filter",
        ),
        (["compile"], 2, "Usage: "),
        (["nonsense"], 2, "Usage: "),
    ],
)
def test_exit_status(
    arguments: list[str],
    status: int,
    stderr: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0 is fine, 1 failed with one line on stderr, 2 is wrong usage."""
    monkeypatch.setattr("sys.argv", ["nwfilter-hook", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == status
    assert capsys.readouterr().err.startswith(stderr)


def test_help_and_version() -> None:
    """Every command tells what it is for."""
    listed = run("--help").stdout
    for command in ("compile", "replay", "show", "validate"):
        assert command in listed
        assert run(command, "-h").exit_code == 0
    assert run("--version").stdout.startswith("nwfilter-hook, version ")


# --- compile ----------------------------------------------------------------------------------------------------------

COMPILE = ("compile", "--filter", "mine", "--tap", "vnet0", "--mac", "52:54:0:0:0:1")


def test_compile_prints_the_script() -> None:
    """`compile` prints the transaction; a repeated parameter is a list."""
    result = run(*COMPILE, "-p", "PORT=22", "-p", "PORT=80")
    assert (result.exit_code, result.stderr) == (0, "")
    rules = [line for line in result.stdout.splitlines() if line.startswith("add rule bridge nwfilter from/vnet0 ")]
    assert [
        re.sub(r".* (ether type \w+).*?( tcp dport \d+)? counter drop comment .*", r"\1\2", rule) for rule in rules
    ] == [
        "ether type ip tcp dport 22",
        "ether type ip tcp dport 80",
        "ether type arp",
    ]


def test_a_parameter_may_be_a_network(here: Path) -> None:
    """-p takes a network where an address may stand."""
    (here / "filters" / "net.xml").write_text(filter_xml(rule_xml("<ip srcipaddr='$IP'/>"), name="net"))
    command = ("compile", "--filter", "net", "--tap", "t", "--mac", "2:0:0:0:0:1")
    script = run(*command, "-p", "IP=192.0.2.8/29", "-p", "IP=10.0.0.1").stdout
    assert "ip saddr & 255.255.255.248 == 192.0.2.8 " in script
    assert "ip saddr 10.0.0.1 " in script


def test_compile_looks_into_given_directories_first(here: Path) -> None:
    """--filters come before the configured directories, in their order."""
    for name, protocol in (("a", "<rarp/>"), ("b", "<vlan/>")):
        (here / name).mkdir()
        (here / name / "mine.xml").write_text(filter_xml(rule_xml(protocol), name="mine"))
    assert "ether type 0x8035" in run(*COMPILE, "--filters", "a", "--filters", "b").stdout
    assert "ether type vlan" in run(*COMPILE, "--filters", "b", "--filters", "a").stdout


def test_compile_needs_no_configuration_file(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    """Without a configuration file `compile` knows the stock filters and those it is given."""
    monkeypatch.delenv("NWFILTER_HOOK_CONF")
    monkeypatch.setattr("nwfilter_hook.config.CONFIG_FILE", str(here / "none"))
    assert run("compile", "--filter", "no-mac-spoofing", "--tap", "t", "--mac", "2:0:0:0:0:1").exit_code == 0
    assert run(*COMPILE, "-p", "PORT=1", "--filters", "filters").exit_code == 0


def test_compile_for_a_macvtap() -> None:
    """--attachment says what the device is."""
    text = run(*COMPILE, "-p", "PORT=1", "--attachment", "macvtap").stdout
    assert "add chain netdev nwfilter from/vnet0 { type filter hook egress" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "filter 'mine': variable has no value: $PORT at "),
        (["-p", "PORT=x"], "parameter PORT: 'x' can't be dstportstart on <ip> at "),
        (["-p", "PORT=1", "--filter", "gone"], "no filter 'gone' in "),
    ],
)
def test_what_cannot_be_compiled(arguments: list[str], message: str) -> None:
    """What is wrong with filter or parameters is one line, nothing is printed."""
    error = failed(*COMPILE, *arguments)
    assert error.startswith("--filter: ")
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "PORT"], "'PORT' is not NAME=VALUE"),
        (["-p", "PO-RT=1"], "parameter name 'PO-RT'"),
        (["-p", "PORT=1,2"], "for a list repeat the parameter"),
        (["-p", "IP=192.0.2.0/255.255.255.0"], "in a network, a length such as /29"),
        (["--mac", "nonsense"], "'nonsense' is not a MAC address"),
        (["--tap", "a/b"], "tap name 'a/b'"),
        (["--tap", "x" * 16], "up to 15 of"),
        (["--filter", "../mine"], "filter name '../mine'"),
        (["--attachment", "usb"], "'usb' is not one of"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    """A wrong argument is wrong usage, and named."""
    assert message in " ".join(refused(*COMPILE, *arguments).replace("│", " ").split())


# --- validate ---------------------------------------------------------------------------------------------------------


def test_validate_says_all_that_is_wrong(here: Path) -> None:
    """Each file is looked at; what is right is said on stdout, what is wrong on stderr."""
    (here / "bad.xml").write_text("<filter name='bad'>\n<rule action='dorp' direction='ni'/>\n<rul/></filter>")
    (here / "worse.xml").write_text("<filter name='worse' chain='x'/>")
    result = run("validate", "bad.xml", "filters/mine.xml", "gone.xml", "worse.xml")
    assert result.exit_code == 1
    assert result.stdout == "filters/mine.xml: filter mine, 2 entries: fine\n"
    assert [line.partition(",")[0].partition("; ")[0] for line in result.stderr.splitlines()] == [
        "bad.xml:2: action 'dorp' is not one of accept drop reject return continue",
        "bad.xml:2: direction 'ni' is not one of in out inout",
        "bad.xml:3: unknown element <rul> in <filter>",
        "gone.xml: No such file or directory",
        "worse.xml:1: chain 'x': use root",
    ]


def test_validate_wants_a_file() -> None:
    """Without a file `validate` is wrong usage."""
    assert "Missing argument" in refused("validate")


def test_every_stock_filter_is_valid() -> None:
    """The stock filters are right."""
    files = [str(path) for path in (Path(__file__).parents[3] / "filters").glob("*.xml")]
    assert run("validate", *files).exit_code == 0


# --- replay, show -----------------------------------------------------------------------------------------------------


def test_replay_does_what_the_hook_does(backend: FakeBackend, here: Path) -> None:
    """`replay` runs an operation on an XML from a file or from standard input; `show` then shows what is installed."""
    assert run("replay", "web", "start", "begin", "-", "--xml", "domain.xml").exit_code == 0
    assert backend.kernel.taps() == {"vnet0"}
    (view,) = json.loads(run("show", "--json").stdout)
    assert (view["guest"], view["tap"], view["filter"]) == ("web", "vnet0", "mine")
    assert (view["parameters"], view["state"]) == ({"PORT": ["22", "80"]}, "in force")
    assert set(view) >= {
        *("guest", "uuid", "tap", "mac", "filter", "parameters"),
        *("attachment", "state", "learned", "chains", "dropped"),
    }
    heading, row = run("show").stdout.splitlines()
    assert heading.split()[:5] == ["GUEST", "TAP", "FILTER", "PARAMETERS", "STATE"]
    assert heading.split()[-2:] == ["CHAINS", "DROPPED"]
    assert row.split()[:6] == ["web", "vnet0", "mine", "PORT=22,80", "in", "force"]
    assert row.split()[-2:] == ["2", "-"]
    assert run("show", "vnet0").stdout == run("show", "web").stdout
    assert run("replay", "web", "stopped", "--xml", "-", stdin=DOMAIN).exit_code == 0
    assert backend.kernel.taps() == set()
    assert json.loads(run("show", "--json").stdout) == []


def test_a_dry_run_prints_and_does_nothing(backend: FakeBackend, here: Path) -> None:
    """--dry-run prints the transaction of each operation and changes neither kernel nor disk."""
    install = run("replay", "web", "start", "--xml", "domain.xml", "--dry-run")
    assert install.stdout.startswith("add table bridge nwfilter\n")
    assert run("replay", "web", "prepare", "--xml", "domain.xml", "--dry-run").stdout == ""
    assert run("replay", "web", "started", "--xml", "domain.xml", "--dry-run").stdout == ""
    assert (backend.scripts, (here / "state").exists()) == ([], False)
    run("replay", "web", "start", "--xml", "domain.xml")
    before = sorted(path.name for path in (here / "state").rglob("*"))
    assert "delete chain" in run("replay", "web", "release", "--xml", "domain.xml", "--dry-run").stdout
    assert run("replay", "web", "reconnect", "--xml", "domain.xml", "--dry-run").exit_code == 0
    assert len(backend.scripts) == 1
    assert sorted(path.name for path in (here / "state").rglob("*")) == before


def test_a_replay_that_fails(backend: FakeBackend, here: Path) -> None:
    """An operation that fails has the hook's exit status and the hook's message."""
    (here / "filters" / "mine.xml").unlink()
    result = run("replay", "web", "start", "--xml", "domain.xml")
    assert result.exit_code == 1
    assert result.stderr.startswith("nwfilter-hook: web: domain XML of web:3: no filter 'mine' in ")
    assert run("replay", "web", "reconnect", "--xml", "domain.xml").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay", "web", "nonsense", "--xml", "-"], "'nonsense' is not one of"),
        (["replay", "web"], "Missing argument"),
        (["replay"], "Missing argument 'GUEST'"),
    ],
)
def test_wrong_usage_of_replay(arguments: list[str], message: str) -> None:
    """An operation that libvirt doesn't have, or none, is wrong usage."""
    assert message in " ".join(refused(*arguments).replace("│", " ").split())


def test_an_xml_that_is_not_there() -> None:
    """A file that can't be read is an error that names it."""
    assert failed("replay", "web", "start", "--xml", "gone.xml") == "gone.xml: No such file or directory"


def test_showing_what_is_not_there(backend: FakeBackend) -> None:
    """A guest or tap that isn't under filter is an error that names it."""
    assert failed("show", "nobody") == "nothing is installed for a guest or tap 'nobody'"


def test_show_tells_what_the_kernel_lacks(backend: FakeBackend) -> None:
    """Rules that the kernel has lost are shown as missing."""
    run("replay", "web", "start", "--xml", "domain.xml")
    backend.kernel.chains.clear()
    (view,) = json.loads(run("show", "--json").stdout)
    assert view["state"] == "missing"


def test_a_guests_name_cannot_forge_a_line(backend: FakeBackend, here: Path) -> None:
    """A name with line breaks, colours or markup is shown as it is, on one line."""
    name = "a\nb [red]c[/red] \x1b[31m"
    xml = DOMAIN.replace(">web<", ">a&#10;b [red]c[/red] <")
    assert run("replay", name, "start", "--xml", "-", stdin=xml).exit_code == 0
    lines = run("show").stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("a\\nb [red]c[/red]")
