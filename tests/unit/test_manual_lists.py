"""What the manual lists is what there is: commands, options, keys, elements, attributes, filters, parameters."""

from __future__ import annotations

import importlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nwfilter_hook import config, hook, settings
from nwfilter_hook.base.errors import NOWHERE
from nwfilter_hook.cli.main import COMMANDS, cli
from nwfilter_hook.cli.replay import OPERATIONS
from nwfilter_hook.doctor.examine import names
from nwfilter_hook.domain.binding import parse_binding
from nwfilter_hook.domain.parse import parse_domain
from nwfilter_hook.filters import connections, learning
from nwfilter_hook.filters.model import FilterRef
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.filters.protocols import CHAIN_PRIORITIES, ELEMENTS, STP_ALIASES
from nwfilter_hook.operations.compile import compile_reference
from nwfilter_hook.packets.given import KINDS, WORDS
from nwfilter_hook.ruleset.model import Attachment
from nwfilter_hook.storage.library import Library
from tests.unit.storage.test_library import NAMES as LIBVIRTS_FILTERS
from tests.unit.storage.test_library import STOCK

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"`([a-z][a-z0-9-]*)`")


def section(page: str, heading: str) -> str:
    """What is below a heading, as far as the next that isn't below it."""
    text = (ROOT / "packaging/man" / page).read_text()
    found = re.search(rf"(?ms)^{re.escape(heading)}\n([=-])\1+\n(.*?)(?=^[^\n]+\n(?:===+|\1\1\1+)\n|\Z)", text)
    assert found, heading
    return found[2]


def definitions(text: str) -> Iterator[tuple[str, str]]:
    """Each term of the definition lists, and what it says."""
    yield from re.findall(r"(?m)^(\S[^\n]*)\n((?:    [^\n]*\n|\n(?=    ))+)", text)


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by what is typed for it."""
    for name, place in COMMANDS.items():
        module, _, function = place.partition(".")
        command = getattr(importlib.import_module(f"nwfilter_hook.cli.{module}"), function)
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", each) for inner, each in command.commands.items())
        else:
            yield name, command


USAGE = {
    term.strip("`"): body for term, body in definitions(section("nwfilter-hook.8.rst", "Commands")) if term[0] == "`"
}


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_command_has_its_options_and_arguments(name: str, command: click.Command) -> None:
    """Those of --help, no others."""
    (usage,) = (usage for usage in USAGE if re.match(rf"{name}( [^a-z]|$)", usage))
    options = {name for each in command.params if isinstance(each, click.Option) for name in each.opts[-1:]}
    if "[PACKET]" in usage:
        usage = usage.replace("[PACKET] ", "")
        options -= {f"--{word}" for word in WORDS}
    assert set(re.findall(r"(?<![\w-])--?[a-z-]+", usage)) == options
    arguments = [each.human_readable_name.upper() for each in command.params if isinstance(each, click.Argument)]
    words = re.sub(r"\[?--?[a-z-]+( [A-Z=]+)?\]?…?", "", usage[len(name) :]).split()
    assert [word.strip("[]…") for word in words] == [argument.strip("[]…") for argument in arguments]


def test_the_words_of_a_packet() -> None:
    """Each with its value, and what it means."""
    said = dict(definitions(section("nwfilter-hook.8.rst", "The words of a packet")))
    assert {term.strip("`"): body.strip() for term, body in said.items()} == {
        f"--{word.name} {word.value}".rstrip(): word.help for word in WORDS.values()
    }
    assert "one of the first twelve" in section("nwfilter-hook.8.rst", "The words of a packet")
    assert list(WORDS)[:12] == list(KINDS)


def test_no_other_command() -> None:
    """None that was removed."""
    assert len(USAGE) == len(list(commands()))


def test_operations() -> None:
    """Each that libvirt may call, with those that do the same."""
    terms = [term.split(", ") for term, _ in definitions(section("nwfilter-hook.8.rst", "Operations"))]
    assert {name for term in terms for name in term} == set(OPERATIONS)
    assert [*hook.CHECKING] in terms
    assert [*hook.REMOVING] in terms


def test_checks_of_the_doctor() -> None:
    """Each, in the order in which they run."""
    terms = [term for term, _ in definitions(section("nwfilter-hook.8.rst", "The doctor"))]
    assert [term for term in terms if re.fullmatch("[a-z-]+", term)] == names()


def test_kinds_of_devices() -> None:
    """What --attachment takes."""
    (said,) = (body for usage, body in USAGE.items() if usage.startswith("compile "))
    assert {kind.value for kind in Attachment} <= set(NAME.findall(said))


# --- examples ---------------------------------------------------------------------------------------------------------


def examples(beginning: str) -> Iterator[str]:
    """Literal blocks of all pages that begin so."""
    for path in sorted((ROOT / "packaging/man").glob("*.rst")):
        for block in re.findall(r"::\n\n((?:[ ]+\S[^\n]*\n|\n(?=[ ]{4}))+)", path.read_text()):
            text = textwrap.dedent(block)
            if text.startswith(beginning):
                yield text


def test_filters_are_filters() -> None:
    """The filters that stand in the manual have no faults, and refer to stock filters."""
    found = [parse_filter(text.encode(), "example.xml") for text in examples("<filter name")]
    assert len(found) >= 2
    for each in found:
        reference = FilterRef(each.name, {"IP": ("192.0.2.7",)}, NOWHERE)
        library = Library([str(STOCK)], defined={each.name: each})
        compile_reference(reference, "vnet0", Attachment.BRIDGE_PORT, "52:54:00:00:00:01", library)


def test_a_binding_and_metadata() -> None:
    """They are read, and lead to a filter."""
    (binding,) = examples("<filterbinding>")
    (metadata,) = examples("<metadata>")
    domain = f"""<domain><name>web</name><uuid>6f0d0c3e-6c1f-4b54-9c55-9a3f5b1d7a10</uuid>{metadata}<devices>
    <interface type="direct"><mac address="52:54:00:00:00:04"/></interface></devices></domain>"""
    for guest in (parse_binding(binding.encode(), "b"), parse_domain(domain.encode(), "d")):
        (reference,) = (interface.reference for interface in guest.interfaces)
        assert reference
        assert (reference.filter, reference.parameters["IP"]) == ("clean-traffic", ("192.0.2.7",))


def test_what_compile_prints() -> None:
    """The example is what the command prints."""
    (text,) = examples("$ nwfilter-hook compile")
    command, *lines = text.splitlines()
    command, _, pattern = command.removeprefix("$ nwfilter-hook ").partition(" | grep ")
    arguments = command.split()
    ran = CliRunner().invoke(cli, arguments)
    assert ran.exit_code == 0, ran.output
    assert [line for line in ran.stdout.splitlines() if re.search(pattern, line)] == lines


def test_what_explain_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session of the manual is what the command prints, with the filter that the manual has before it."""
    (filter_xml,) = examples("<filter name='test-eth0'>")
    (tmp_path / "test-eth0.xml").write_text(filter_xml)
    (tmp_path / "conf").write_text(f"[paths]\nfilter_dirs = {tmp_path}:{STOCK}\n")
    monkeypatch.setenv(config.CONFIG_VARIABLE, str(tmp_path / "conf"))
    (text,) = examples("$ nwfilter-hook explain")
    command, *lines = text.rstrip().splitlines()
    ran = CliRunner().invoke(cli, command.removeprefix("$ nwfilter-hook ").split())
    assert ran.exit_code == 1
    assert [line.rstrip() for line in ran.stdout.splitlines()] == lines
    (short,) = re.findall(r"(?m)^    \$ (nwfilter-hook explain .*)\n((?:    .*\n)+)", (ROOT / "README.md").read_text())
    assert (short[0], [line for line in textwrap.dedent(short[1]).splitlines() if line not in lines]) == (
        command.removeprefix("$ "),
        ["…"],
    )


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in settings.SECTIONS if name != "defaults"])
def test_keys(name: str) -> None:
    """The keys of a section, and their defaults, as they are in the manual and in the file that is installed."""
    said = dict(definitions(section("nwfilter-hook.conf.5.rst", f"[{name}]")))
    assert [term.strip("`") for term in said] == list(settings.SECTIONS[name])
    installed = (ROOT / "packaging/nwfilter-hook.conf").read_text()
    for key in settings.SECTIONS[name]:
        found = re.search(r"Default:\s+`?([^`\s]+?)`?\.$", said[f"`{key}`"].rstrip())
        assert found, key
        assert re.search(rf"(?m)^#{key} = ", installed)
        if found[1] != "none":
            assert f"#{key} = {found[1]}\n" in installed
            attribute = f"guard_{key}" if name == "guard" else key
            read = getattr(config.parse_config(f"[{name}]\n{key} = {found[1]}\n", "c"), attribute)
            assert read == getattr(config.Config(), attribute) or key == "filter_dirs"


def test_defaults() -> None:
    """The three kinds."""
    terms = " ".join(term for term, _ in definitions(section("nwfilter-hook.conf.5.rst", "[defaults]")))
    assert re.findall(r"`(\w+)\.NAME`", terms) == list(config.DEFAULTS_FOR)


def test_the_example_is_a_configuration() -> None:
    """It is read without a fault."""
    example = section("nwfilter-hook.conf.5.rst", "Example").partition("::\n")[2]
    assert config.parse_config(example, "c").floors


# --- the language -----------------------------------------------------------------------------------------------------


def test_elements_and_their_attributes() -> None:
    """All, and no others; `comment` is everybody's."""
    common = section("nwfilter-filter.7.rst", "Layer 3").partition("\n\n`tcp`")[0]
    found: dict[str, set[str]] = {}
    for heading, shared in (("Layer 2", set()), ("Layer 3", set(NAME.findall(common.split(" Those ")[0])))):
        for term, said in definitions(section("nwfilter-filter.7.rst", heading)):
            found.update({name: shared | set(NAME.findall(said)) | {"comment"} for name in NAME.findall(term)})
    assert found == {name: set(element.attributes) for name, element in ELEMENTS.items()}


def test_attributes_and_what_they_hold() -> None:
    """Each is explained once; the numbers that it may be are those that are taken."""
    explained = [
        (NAME.findall(term), said) for term, said in definitions(section("nwfilter-filter.7.rst", "Attributes"))
    ]
    names = sorted(name for term, _ in explained for name in term)
    # `type` and `flags` of different elements share what is said
    assert names == sorted({name for element in ELEMENTS.values() for name in element.attributes} - {"comment"})
    bounds = {
        name: int(found[1]) for term, said in explained for found in re.finditer(r" 0 to (\d+)", said) for name in term
    }
    assert len(bounds) > 40
    for element in ELEMENTS.values():
        for name, attribute in element.attributes.items():
            if attribute.type.name.startswith(("UINT", "DSCP", "VLANID", "PROTOCOL", "OPCODE", "CONNLIMIT")):
                assert attribute.type.parse(str(bounds[name])) == bounds[name]
                with pytest.raises(ValueError, match="number"):
                    attribute.type.parse(str(bounds[name] + 1))


def test_other_spellings() -> None:
    """Those of the STP attributes."""
    assert set(STP_ALIASES) <= set(re.findall(r"`([a-z_-]+)`", section("nwfilter-filter.7.rst", "Attributes")))


def test_chains() -> None:
    """Their names and priorities, in their order."""
    found = re.findall(r"(?m)^`([a-z0-9]+)…`\n.* Priority (-\d+)\.$", section("nwfilter-filter.7.rst", "Order"))
    assert [(name, int(priority)) for name, priority in found] == list(CHAIN_PRIORITIES.items())


def test_parameters() -> None:
    """Each that says how addresses are learned, and how many connections there may be."""
    learned = section("nwfilter-filter.7.rst", "Learned addresses")
    named = set(re.findall(r"`([A-Z0-9_]+)`", "".join(term for term, _ in definitions(learned))))
    wanted = {value for name, value in vars(learning).items() if isinstance(value, str) and value.startswith("CTRL_")}
    assert named == wanted | set(learning.FIXED.values()) | {"DHCPSERVER"}
    assert connections.CONNECTIONS in section("nwfilter-hook.8.rst", "How many connections a guest may have")


def test_stock_filters() -> None:
    """Those that libvirt doesn't have."""
    terms = [term for term, _ in definitions(section("nwfilter-filter.7.rst", "Stock filters"))]
    ours = {path.stem for path in STOCK.glob("*.xml")} - set(LIBVIRTS_FILTERS)
    assert {name for term in terms for name in NAME.findall(term)} == ours
