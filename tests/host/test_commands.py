"""The commands as an administrator types them: what they print, for people and for programs, and their exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lxml import etree

from tests.support.frames import GUEST, OTHER, OTHER_IP, udp
from tests.support.host import STOCK, Sandbox, drop_udp, filter_xml, reference
from tests.support.netns import REPOSITORY

UUID = "11111111-1111-4111-8111-111111111111"


# --- list, dumpxml ----------------------------------------------------------------------------------------------------


def test_list_is_a_table(library: Sandbox) -> None:
    """UUID, name, origin, chain, taps: a line per filter, sorted by name, and virsh's two columns first."""
    library.define(filter_xml("mine", uuid=UUID, attributes="chain='arp-x'")).fine()
    heading, *lines = library.cli("list").fine().out.splitlines()
    assert heading.split() == ["UUID", "NAME", "ORIGIN", "CHAIN", "TAPS"]
    assert [line.split()[1] for line in lines] == sorted([*(path.stem for path in STOCK.glob("*.xml")), "mine"])
    (mine,) = [line.split() for line in lines if " mine " in line]
    assert mine == [UUID, "mine", "local", "arp-x", "0"]


def test_list_for_programs(library: Sandbox) -> None:
    """The same and more as JSON."""
    library.define(filter_xml("mine", uuid=UUID)).fine()
    (mine,) = [each for each in library.cli("list", "--json").fine().json if each["name"] == "mine"]
    assert mine == {
        "uuid": UUID,
        "name": "mine",
        "origin": "local",
        "chain": "root",
        "path": f"{library.filters}/mine.xml",
        "shadows": False,
        "taps": [],
        "problem": None,
    }


def test_a_directory_between_local_and_stock(library: Sandbox) -> None:
    """Its path is the origin of what is in it; a local filter may hide one of those, too."""
    between = library.directory / "site"
    between.mkdir()
    library.configure(filter_dirs=[library.filters, f"{between}/", STOCK])
    (between / "shared.xml").write_text(filter_xml("shared"))
    assert library.names(origin=str(between)) == ["shared"]
    library.define(filter_xml("shared", drop_udp(9))).fine()
    assert library.names(shadows=True, origin="local") == ["shared"]


def test_a_directory_with_a_slash_at_its_end(library: Sandbox) -> None:
    """It is the same directory: what is defined there is local and can be undefined."""
    library.configure(filter_dirs=[f"{library.filters}//", f"{STOCK}/"])
    library.define(filter_xml("mine")).fine()
    assert library.names(origin="local") == ["mine"]
    library.cli("undefine", "mine").fine()
    assert library.files() == {}


@pytest.mark.netns
def test_list_counts_taps_through_the_tree(site: Sandbox) -> None:
    """A filter counts the taps whose tree holds it, each once."""
    site.define(filter_xml("mine", reference("no-mac-spoofing"), reference("clean-traffic"))).fine()
    site.start("web", "vnet0", "mine")
    site.start("db", "vnet1", "no-mac-spoofing", mac=OTHER)
    listed = {each["name"]: each["taps"] for each in site.cli("list", "--json").json}
    assert listed["mine"] == ["vnet0"]
    assert sorted(listed["no-mac-spoofing"]) == ["vnet0", "vnet1"]
    assert listed["no-arp-ip-spoofing"] == ["vnet0"]
    assert listed["allow-ipv6"] == []
    (line,) = [line for line in site.cli("list").fine().out.splitlines() if " no-mac-spoofing " in line]
    assert line.split()[-1] == "2"


def test_dumpxml_by_name_and_uuid(library: Sandbox) -> None:
    """The normal form; no file or directory is made."""
    library.place("mine", filter_xml("mine", drop_udp("0x35"), uuid=UUID.upper()))
    found = library.cli("dumpxml", "mine").fine().out
    assert found == (
        "<filter name='mine' chain='root'>\n"
        f"  <uuid>{UUID}</uuid>\n"
        "  <rule action='drop' direction='out' priority='500'>\n"
        "    <ip protocol='udp' dstportstart='0x35'/>\n"
        "  </rule>\n"
        "</filter>\n"
    )
    for name in (UUID, UUID.upper(), UUID.replace("-", "")):
        assert library.cli("dumpxml", name).fine().out == found
    assert not library.state_dir.exists()


def test_dumpxml_of_nothing(library: Sandbox) -> None:
    """What isn't there, what is no filter, what tries to leave the directory."""
    library.cli("dumpxml", "clean-trafic").refused("did you mean 'clean-traffic'?")
    library.cli("dumpxml", UUID).refused(UUID)
    library.cli("dumpxml", "../filters/allow-arp").refused("'../filters/allow-arp'")
    library.place("broken", "<filter name='broken'>\n<rule action='dorp' direction='in'/>\n</filter>")
    library.cli("dumpxml", "broken").refused("broken.xml:2: ", "did you mean 'drop'?")


# --- define, undefine, reload -----------------------------------------------------------------------------------------


def test_define_from_a_file(library: Sandbox) -> None:
    """The file is read, its normal form stored in the first directory, which is made."""
    path = library.directory / "anything.txt"
    path.write_text(filter_xml("mine", drop_udp(9), uuid=UUID))
    assert library.cli("define", path).fine().out == f"filter mine defined from {path}; 0 taps changed\n"
    stored = (library.filters / "mine.xml").read_text()
    assert stored == library.cli("dumpxml", "mine").out
    assert sorted(library.files()) == ["filters/mine.xml"]
    assert library.cli("undefine", "mine").fine().out == "filter mine undefined; 0 taps changed\n"
    assert library.files() == {}


def test_define_for_programs(library: Sandbox) -> None:
    """JSON on stdout and nothing else."""
    ran = library.define(filter_xml("mine", uuid=UUID), "--json").fine()
    assert ran.json == {"name": "mine", "changed": [], "notes": [], "diff": [], "dry_run": False}
    assert library.cli("undefine", "--json", "mine").fine().json["name"] == "mine"
    assert library.cli("reload", "--json").fine().json["changed"] == []


def test_a_dry_run_stores_nothing(library: Sandbox) -> None:
    """Neither define nor undefine."""
    library.define(filter_xml("mine"), "--dry-run").fine()
    assert library.files() == {}
    library.define(filter_xml("mine")).fine()
    with library.unchanged():
        library.cli("undefine", "mine", "--dry-run").fine()


def test_a_definition_in_another_encoding(library: Sandbox) -> None:
    """What is stored is UTF-8, whatever the locale says."""
    comment = "<!-- für Gäste €-frei -->"
    xml = "<?xml version='1.0' encoding='iso-8859-15'?>" + filter_xml("mine", comment)
    library.cli("define", "-", stdin=xml.encode("iso-8859-15")).fine()
    assert comment.encode() in (library.filters / "mine.xml").read_bytes()
    assert comment in library.cli("dumpxml", "mine").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("define",),
        ("define", "-", "--what"),
        ("define", "a", "b"),
        ("undefine",),
        ("dumpxml",),
        ("edit",),
        ("list", "extra"),
        ("reload", "extra"),
        ("binding-create",),
        ("binding-delete",),
        ("binding-dumpxml",),
        ("no-such-command",),
    ],
    ids=" ".join,
)
def test_wrong_usage(library: Sandbox, arguments: tuple[str, ...]) -> None:
    """Exit status 2 and how it is used."""
    ran = library.cli(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("Usage: nwfilter-hook ")


def test_as_a_process(tmp_path: Path) -> None:
    """What the other tests do in their own process is what the command does: streams, exit status, C locale."""
    site = Sandbox(tmp_path)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "NWFILTER_HOOK_CONF": str(site.conf)}

    def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        command = [sys.executable, "-m", "nwfilter_hook", *arguments]
        done = subprocess.run(
            command, input=stdin, capture_output=True, encoding="utf-8", env=environment, cwd=REPOSITORY, check=False
        )
        return done.returncode, done.stdout, done.stderr

    xml = filter_xml("mine", "<!-- ü -->", drop_udp(9), uuid=UUID)
    assert run("define", "-", stdin=xml) == (0, "filter mine defined from <stdin>; 0 taps changed\n", "")
    assert "<!-- ü -->" in run("dumpxml", "mine")[1]
    assert run("list", "--json")[0] == 0
    status, out, err = run("undefine", "theirs")
    assert (status, out) == (1, "")
    assert err == "nwfilter-hook: no filter has the name 'theirs'\n"
    assert run("undefine")[0] == 2


# --- bindings ---------------------------------------------------------------------------------------------------------


def binding(tap: str = "vnet0", mac: str = GUEST, filter_name: str = "no-mac-spoofing", owner: str = "web") -> str:
    """A <filterbinding>."""
    return (
        f"<filterbinding><owner><name>{owner}</name><uuid>{UUID}</uuid></owner><portdev name='{tap}'/>"
        f"<mac address='{mac}'/>{reference(filter_name, IP='10.0.0.1')}</filterbinding>"
    )


@pytest.mark.netns
def test_the_life_of_a_binding(site: Sandbox) -> None:
    """Created, listed, dumped, updated with its filter, deleted; dumped and created again it is the same."""
    wire = site.wire
    assert wire
    forged = udp(src=OTHER)
    assert wire.passes(forged)
    assert site.cli("binding-create", "-", stdin=binding()).fine().out == "binding on vnet0 created from <stdin>\n"
    assert not wire.passes(forged)
    assert wire.passes(udp())
    assert site.cli("binding-list").fine().out.split() == ["TAP", "FILTER", "GUEST", "vnet0", "no-mac-spoofing", "web"]
    (listed,) = site.cli("binding-list", "--json").fine().json
    assert (listed["tap"], listed["filter"], listed["guest"], listed["mac"]) == (
        "vnet0",
        "no-mac-spoofing",
        "web",
        GUEST,
    )
    dumped = site.cli("binding-dumpxml", "vnet0").fine().out
    root = etree.fromstring(dumped)
    assert root.findtext("owner/name") == "web"
    assert [dict(each.attrib) for each in root.iter("parameter")] == [{"name": "IP", "value": "10.0.0.1"}]
    site.define(filter_xml("no-mac-spoofing", drop_udp(99))).fine()
    assert wire.passes(forged)
    assert not wire.passes(udp(dport=99))
    site.cli("undefine", "no-mac-spoofing").fine()
    assert not wire.passes(forged)
    site.check()
    rules = site.rules()
    assert site.cli("binding-delete", "vnet0").fine().out == "binding on vnet0 deleted\n"
    assert wire.passes(forged)
    assert site.cli("binding-list").fine().out.split() == ["TAP", "FILTER", "GUEST"]
    path = site.directory / "binding.xml"
    path.write_text(dumped)
    site.cli("binding-create", path).fine()
    assert site.rules() == rules
    site.check()


@pytest.mark.netns
def test_a_tap_has_one_binding(site: Sandbox) -> None:
    """Neither a guest's tap nor one that has a binding can be bound; a guest's can't be taken away."""
    site.start("db", "vnet1", "clean-traffic", mac=OTHER)
    site.cli("binding-create", "-", stdin=binding()).fine()
    with site.unchanged():
        site.cli("binding-create", "-", stdin=binding(filter_name="allow-arp")).refused("vnet0", "web")
        site.cli("binding-create", "-", stdin=binding("vnet1")).refused("vnet1", "db")
        site.cli("binding-delete", "vnet1").refused("vnet1", "db")
        site.cli("binding-delete", "vnet7").refused("'vnet7'")
        site.cli("binding-dumpxml", "vnet7").refused("'vnet7'")


@pytest.mark.netns
def test_a_tap_that_became_a_guests(site: Sandbox) -> None:
    """A binding on a name that libvirt gives to a guest is overruled, and neither listed nor rebuilt nor in the way."""
    site.cli("binding-create", "-", stdin=binding(filter_name="allow-arp")).fine()
    site.start("db", "vnet0", "no-mac-spoofing")
    rules = site.rules()
    (listed,) = site.cli("binding-list", "--json").json
    assert (listed["guest"], listed["filter"]) == ("db", "no-mac-spoofing")
    assert "0 taps changed" in site.define(filter_xml("allow-arp", drop_udp(9))).fine().out
    assert site.rules() == rules
    site.cli("binding-delete", "vnet0").refused("db")
    site.stop("db")
    assert "vnet0" not in site.rules()


@pytest.mark.netns
@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("", ("<stdin>:1", "empty")),
        ("<filter name='x'/>", ("<stdin>:1", "<filterbinding>")),
        ("<filterbinding/>", ("<owner><name>",)),
        (binding().replace("<portdev name='vnet0'/>", ""), ("<portdev name=",)),
        (binding(tap="a b"), ("a b",)),
        (binding(tap="0123456789abcdef"), ("0123456789abcdef",)),
        (binding(mac="52:54"), ("52:54",)),
        (binding().replace(reference("no-mac-spoofing", IP="10.0.0.1"), ""), ("<filterref",)),
        (binding(filter_name="no-such"), ("no-such",)),
        (binding(filter_name="../x"), ("../x",)),
    ],
)
def test_what_is_no_binding(site: Sandbox, xml: str, words: tuple[str, ...]) -> None:
    """Each is refused with one line; nothing is installed."""
    with site.unchanged():
        site.cli("binding-create", "-", stdin=xml).refused(*words)


@pytest.mark.netns
def test_names_that_would_forge_output(site: Sandbox) -> None:
    """An owner's name with line ends and markup comes out on one line, and the dump is the same XML again."""
    owner = "web&#10;changed: &lt;b&gt; [red]x"
    site.cli("binding-create", "-", stdin=binding(owner=owner, filter_name="allow-arp")).fine()
    assert len(site.cli("binding-list").fine().out.splitlines()) == 2
    ran = site.define(filter_xml("allow-arp", drop_udp(9))).fine()
    assert len([line for line in ran.out.splitlines() if line.startswith("changed: ")]) == 1
    root = etree.fromstring(site.cli("binding-dumpxml", "vnet0").fine().out)
    assert (root.findtext("owner/name") or "").splitlines() == ["web", "changed: <b> [red]x"]


@pytest.mark.netns
def test_a_binding_that_leads_to_a_device(site: Sandbox) -> None:
    """A tap in no bridge is filtered on the device, and stays so when its filter changes."""
    wire = site.wire
    assert wire
    wire.plug("lone", bridge=None)
    with site.inside():
        assert not os.path.exists("/sys/class/net/lone"), "the tests' process sees another /sys"
    environment = {**os.environ, "NWFILTER_HOOK_CONF": str(site.conf), "PYTHONPATH": str(REPOSITORY)}

    def run(*arguments: str, stdin: str = "") -> None:
        wire.run(
            sys.executable, "-m", "nwfilter_hook", *arguments, stdin=stdin, environment=environment, own_sysfs=True
        )

    run("binding-create", "-", stdin=binding("lone"))
    assert site.record_of_tap("lone")["bindings"][0]["attachment"] == "device"
    other = f"<rule action='drop' direction='in'><ip srcipaddr='{OTHER_IP}'/></rule>"
    run("define", "-", stdin=filter_xml("no-mac-spoofing", drop_udp(9), other))
    assert site.record_of_tap("lone")["bindings"][0]["attachment"] == "device"
    assert [rule.comment for rule in wire.rules("netdev")] == ["no-mac-spoofing:3", "no-mac-spoofing:6"]
    site.cli("binding-delete", "lone").fine()
    assert not wire.rules("netdev")
