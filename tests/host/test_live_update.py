"""Filters change under running guests: every tap that uses them, in one transaction, or none."""

from __future__ import annotations

import json

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import GUEST_IP, OTHER, THIRD, arp, ipv4, udp
from tests.support.host import STOCK, Sandbox, drop_udp, filter_xml, reference
from tests.support.netns import Wire

pytestmark = pytest.mark.netns


@pytest.fixture
def wire(site: Sandbox) -> Wire:
    """The site's."""
    return site.wire


@pytest.fixture
def crowd(site: Sandbox) -> Sandbox:
    """Three guests of four taps: web uses `inner` through `outer`, db uses it itself, alone doesn't."""
    site.define(filter_xml("inner", drop_udp(9))).fine()
    site.define(filter_xml("outer", reference("no-mac-spoofing"), reference("inner", X="1"))).fine()
    taps = [interface("vnet0", "outer", [("IP", GUEST_IP)]), interface("tap2", "no-mac-spoofing", mac=THIRD)]
    assert site.event("web", "start", domain("web", taps)).status == 0
    site.start("db", "vnet1", "inner", mac=OTHER)
    site.start("alone", "tap3", "clean-traffic")
    return site


def scripts(site: Sandbox) -> list[str]:
    """What was handed to nft with -f since the last call, if `count_scripts` was called."""
    path = site.directory / "scripts"
    found = path.read_text().split("=====\n")[1:] if path.exists() else []
    path.write_text("")
    return found


def count_scripts(site: Sandbox) -> None:
    """nft notes its scripts from now on."""
    site.fake_nft(
        'case "$*" in "-f -") { echo =====; tee "$HERE/s"; } >> "$HERE/scripts"; exec $NFT -f "$HERE/s";; esac\n'
        'exec $NFT "$@"'
    )


def test_every_user_and_nobody_else(crowd: Sandbox, wire: Wire) -> None:
    """Through the whole tree, in one transaction; taps that don't use the filter keep their very rules."""
    count_scripts(crowd)
    others = [rule for rule in wire.rules() if rule.tap in ("tap2", "tap3")]
    assert not wire.passes(udp(dport=9))
    ran = crowd.define(filter_xml("inner", drop_udp(10))).fine()
    assert ran.out.splitlines()[1:] == [
        "changed: db vnet1",
        "changed: web vnet0",
        "filter inner defined from <stdin>; 2 taps changed",
    ]
    assert len(scripts(crowd)) == 1
    assert wire.passes(udp(dport=9))
    assert not wire.passes(udp(dport=10))
    assert [rule for rule in wire.rules() if rule.tap in ("tap2", "tap3")] == others
    crowd.check()


def test_a_stock_filter_is_redefined_for_all(crowd: Sandbox, wire: Wire) -> None:
    """Deep in clean-traffic, which guests use directly and through others."""
    text = (STOCK / "no-mac-spoofing.xml").read_text()
    ran = crowd.define(text.replace("</filter>", drop_udp(9) + "</filter>")).fine()
    assert "3 taps changed" in ran.out
    crowd.check()
    crowd.cli("undefine", "no-mac-spoofing").fine()
    crowd.check()


def test_it_is_what_a_start_would_give(crowd: Sandbox) -> None:
    """After changes to and fro, rules and records are those of guests that start now."""
    for port in (10, 11):
        crowd.define(filter_xml("inner", drop_udp(port), attributes="chain='ipv4-x'")).fine()
        crowd.define(filter_xml("outer", reference("inner"), reference("allow-arp"))).fine()
        crowd.check()
    updated, records = crowd.rules(), [crowd.record(guest)["bindings"] for guest in ("web", "db", "alone")]
    taps = [interface("vnet0", "outer", [("IP", GUEST_IP)]), interface("tap2", "no-mac-spoofing", mac=THIRD)]
    for guest in ("web", "db", "alone"):
        crowd.stop(guest)
    assert crowd.event("web", "start", domain("web", taps)).status == 0
    crowd.start("db", "vnet1", "inner", mac=OTHER)
    crowd.start("alone", "tap3", "clean-traffic")
    assert crowd.rules() == updated
    assert [crowd.record(guest)["bindings"] for guest in ("web", "db", "alone")] == records


def test_an_unchanged_normal_form_is_a_no_op(crowd: Sandbox) -> None:
    """Spelled otherwise, with the UUID or without: nft isn't even asked."""
    count_scripts(crowd)
    spelled = "<rule priority='500' direction='out' action='drop' >\n\n<ip dstportstart='009' protocol='17'/></rule>"
    with crowd.unchanged():
        ran = crowd.define(f"<filter chain='root' name='inner'>{spelled}</filter>").fine()
    assert "nothing changes" in ran.out
    assert "0 taps changed" in ran.out
    assert scripts(crowd) == []


def test_a_change_that_concerns_no_rule(crowd: Sandbox, wire: Wire) -> None:
    """A filter that nobody uses changes the library only."""
    listing = crowd.kernel(exact=True)
    crowd.define(filter_xml("unused", drop_udp(9))).fine()
    crowd.define(filter_xml("unused", drop_udp(10))).fine()
    assert crowd.kernel(exact=True) == listing


def test_what_was_learned_stays(site: Sandbox, wire: Wire) -> None:
    """A redefinition doesn't open the way to another address; a rule that no longer asks for it takes the set away."""
    site.start("web", "vnet0", "clean-traffic")
    assert wire.passes(ipv4())
    assert not wire.passes(ipv4(src_ip="10.0.0.7"))
    stock = (STOCK / "no-mac-spoofing.xml").read_text()
    first = drop_udp(10).replace("<rule", "<rule priority='1'")
    site.define(stock.replace("</filter>", first + "</filter>")).fine()
    assert not wire.passes(udp(dport=10))
    assert wire.passes(ipv4())
    assert not wire.passes(ipv4(src_ip="10.0.0.7"))
    site.define((STOCK / "clean-traffic.xml").read_text().replace("no-ip-spoofing", "allow-ipv4")).fine()
    site.define((STOCK / "clean-traffic.xml").read_text().replace("no-arp-spoofing", "allow-arp")).fine()
    site.check()


def test_chains_and_sets_that_are_no_longer_needed_go(crowd: Sandbox) -> None:
    """A filter that shrinks leaves nothing behind."""
    crowd.define(filter_xml("outer", attributes="chain='root'")).fine()
    assert "/vnet0" not in crowd.rules()
    crowd.check()
    crowd.define(filter_xml("outer", reference("clean-traffic"))).fine()
    assert "from/vnet0" in crowd.rules()
    crowd.check()


def test_a_guest_in_quarantine_is_freed(site: Sandbox, wire: Wire) -> None:
    """Its filter was broken when libvirtd restarted; its definition mends the guest."""
    site.define(filter_xml("mine", drop_udp(9))).fine()
    xml = domain("web", [interface("vnet0", "mine")])
    site.start("web", "vnet0", "mine")
    (site.filters / "mine.xml").write_text("broken")
    for record in site.state_dir.glob("domains/*.json"):
        record.unlink()
    assert site.event("web", "reconnect", xml).status == 0
    assert not wire.passes(arp())
    ran = site.define(filter_xml("mine", drop_udp(10)))
    assert "changed: web vnet0" in ran.out
    assert wire.passes(arp())
    assert not wire.passes(udp(dport=10))
    site.check()


# --- all or nothing ---------------------------------------------------------------------------------------------------


def test_a_variable_that_one_guest_lacks(crowd: Sandbox) -> None:
    """The message names guest, tap, filter, and the line as the administrator wrote it; nothing changes anywhere."""
    path = crowd.directory / "new.xml"
    path.write_text(
        "<!-- one\n two -->\n\n<filter name='inner'>\n\n\n"
        "<rule action='drop' direction='out'>\n\n<ip protocol='$X'/></rule></filter>"
    )
    with crowd.unchanged():
        line = crowd.cli("define", path).refused("guest db", "tap vnet1", "filter 'inner'", f"$X at {path}:9")
    assert f"{crowd.filters}/inner.xml" not in line
    crowd.check()


def test_a_value_of_one_guest_does_not_fit(crowd: Sandbox) -> None:
    """web gives X='1', which is no address."""
    crowd.stop("db")
    with crowd.unchanged():
        rule = "<rule action='drop' direction='out'><ip srcipaddr='$X'/></rule>"
        crowd.define(filter_xml("inner", rule)).refused("guest web", "tap vnet0", "<stdin>:2", "'1'")


def test_a_rule_that_nft_refuses(crowd: Sandbox) -> None:
    """The message maps nft's complaint to the line as it was written."""
    body = 'case "$*" in "-f -") cat > "$HERE/s"; if N=$(grep -n "dport 10 " "$HERE/s"); then '
    body += 'echo "/dev/stdin:${N%%:*}:1-2: Error: no such thing" >&2; exit 1; fi; '
    body += 'exec $NFT -f "$HERE/s";; esac\nexec $NFT "$@"'
    crowd.fake_nft(body)
    with crowd.unchanged():
        crowd.define(filter_xml("inner", "", "", drop_udp(10))).refused("<stdin>:4", "'inner'", "no such thing")
    crowd.define(filter_xml("inner", drop_udp(11))).fine()
    crowd.check()


@pytest.mark.parametrize("body", ["exit 1", "echo oops >&2; exit 3", "exec /no/such/nft"])
def test_an_nft_that_fails(crowd: Sandbox, body: str) -> None:
    """Whatever is wrong with it: nothing has changed, for define, undefine and reload alike."""
    crowd.write_filter("no-mac-spoofing", drop_udp(9))
    crowd.fake_nft(body)
    with crowd.unchanged():
        crowd.define(filter_xml("inner", drop_udp(10))).refused("nft")
        crowd.cli("reload").refused("nft")
    crowd.configure()
    crowd.cli("reload").fine()
    crowd.fake_nft(body)
    with crowd.unchanged():
        crowd.cli("undefine", "no-mac-spoofing").refused("nft")
    crowd.configure()
    crowd.check()


def test_an_nft_that_is_missing(crowd: Sandbox) -> None:
    """The message says what to install."""
    crowd.configure(nft="/no/such/nft")
    with crowd.unchanged():
        crowd.define(filter_xml("inner", drop_udp(10))).refused("/no/such/nft", "install")


@pytest.mark.parametrize("ends", [("exec sleep 30", "did not answer within 1 s"), ("kill -9 $$", "killed by signal 9")])
@pytest.mark.parametrize("does", ["", '$NFT "$@"; '], ids=["nothing", "its work"])
def test_an_nft_that_hangs_or_is_killed(crowd: Sandbox, does: str, ends: tuple[str, str]) -> None:
    """It is given up; whether it had done its work or not, the next event brings kernel and files together."""
    crowd.fake_nft(does + ends[0], timeout_s=1)
    crowd.define(filter_xml("inner", drop_udp(10))).refused(ends[1])
    crowd.configure()
    crowd.start("new", "tap9", "clean-traffic")
    crowd.check()
    assert "dstportstart='9'" in crowd.cli("dumpxml", "inner").out


def test_a_file_that_cannot_be_replaced(crowd: Sandbox) -> None:
    """nft has accepted, then the disk refuses: the kernel goes back to the old rules."""
    before = crowd.rules()
    (crowd.filters / "allow-ipv6.xml").mkdir()
    crowd.define(filter_xml("outer", reference("inner"), reference("allow-ipv4"))).fine()
    with_outer = crowd.rules()
    assert with_outer != before
    (crowd.filters / "outer.xml").unlink()
    (crowd.filters / "outer.xml").mkdir()
    (crowd.filters / "outer.xml" / "x").touch()
    ran = crowd.define(filter_xml("outer", drop_udp(12)))
    assert ran.status == 1
    assert "outer.xml can't be replaced" in ran.err
    (crowd.filters / "outer.xml" / "x").unlink()
    (crowd.filters / "outer.xml").rmdir()
    crowd.define(filter_xml("outer", reference("inner"), reference("allow-ipv4")))
    assert crowd.cli("reload").status == 0
    (crowd.filters / "allow-ipv6.xml").rmdir()
    crowd.check()


def test_a_record_that_cannot_be_written(crowd: Sandbox) -> None:
    """The state directory refuses before nft is asked: nothing has changed."""
    domains = crowd.state_dir / "domains"
    (record,) = [path for path in domains.glob("*.json") if json.loads(path.read_text())["guest"] == "web"]
    obstacle = record.with_name(f"~{record.stem}.pending")
    obstacle.mkdir()
    with crowd.unchanged():
        ran = crowd.define(filter_xml("inner", drop_udp(10)))
    assert ran.status == 1
    assert "pending" in ran.err
    obstacle.rmdir()
    crowd.check()


def test_another_guests_trouble_is_not_mine(crowd: Sandbox) -> None:
    """A guest whose own filter is broken by now vetoes only changes of filters that it uses."""
    (crowd.filters / "outer.xml").write_text("broken")
    crowd.define(filter_xml("unused")).fine()
    crowd.define(filter_xml("clean-traffic", drop_udp(9))).fine()
    with crowd.unchanged():
        crowd.cli("reload").refused("guest web", "tap vnet0", "outer.xml:1")


# --- dry run ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_taps_and_rules(crowd: Sandbox) -> None:
    """Which taps would change, and a diff of their rules that a person can read; nothing is touched."""
    with crowd.unchanged():
        ran = crowd.define(filter_xml("inner", drop_udp(10)), "--dry-run").fine()
    lines = ran.out.splitlines()
    assert "--- db vnet1 now" in lines
    assert "+++ web vnet0 then" in lines
    (removed,) = {line for line in lines if line.startswith("-") and "vnet0" in line and "---" not in line}
    (added,) = {line for line in lines if line.startswith("+") and "vnet0" in line and "+++" not in line}
    assert "dport 9" in removed
    assert "dport 10" in added
    assert 'comment "inner:3"' in added
    assert "would change: db vnet1" in lines
    assert lines[-1] == "dry run, nothing done; 2 taps would change"
    found = crowd.define(filter_xml("inner", drop_udp(10)), "--dry-run", "--json").fine().json
    assert found["dry_run"] is True
    assert found["changed"] == [{"guest": "db", "tap": "vnet1"}, {"guest": "web", "tap": "vnet0"}]
    assert any("dport 10" in line for line in found["diff"])


def test_a_dry_run_fails_like_the_real_one(crowd: Sandbox) -> None:
    """An error that compiling finds is found."""
    with crowd.unchanged():
        crowd.define(filter_xml("inner", drop_udp("$Y")), "--dry-run").refused("guest db", "$Y at <stdin>:2")


def test_a_dry_run_of_undefine(crowd: Sandbox) -> None:
    """What comes back into force is shown."""
    crowd.define(filter_xml("no-mac-spoofing", drop_udp(10))).fine()
    with crowd.unchanged():
        ran = crowd.cli("undefine", "no-mac-spoofing", "--dry-run").fine()
    assert any(line.startswith("-") and "dport 10" in line for line in ran.out.splitlines())
    assert any(line.startswith("+") and "no-mac-spoofing" in line for line in ran.out.splitlines())


# --- reload -----------------------------------------------------------------------------------------------------------


def test_reload_after_files_changed(crowd: Sandbox, wire: Wire) -> None:
    """Configuration management replaced a file: in force and reported; a second reload has nothing to do."""
    crowd.write_filter("inner", drop_udp(10))
    with crowd.unchanged():
        ran = crowd.cli("reload", "--dry-run").fine()
    assert [line for line in ran.out.splitlines() if line.startswith("would")] == [
        "would change: db vnet1",
        "would change: web vnet0",
    ]
    assert wire.passes(udp(dport=10))
    ran = crowd.cli("reload").fine()
    assert ran.out.splitlines() == ["changed: db vnet1", "changed: web vnet0", "filters reloaded; 2 taps changed"]
    assert not wire.passes(udp(dport=10))
    crowd.check()
    with crowd.unchanged():
        assert crowd.cli("reload").fine().out == "filters reloaded; 0 taps changed\n"


def test_reload_of_something_wrong(crowd: Sandbox) -> None:
    """Nothing changes until all files can be used; the message says where."""
    crowd.write_filter("no-mac-spoofing", drop_udp(10))
    path = crowd.place("inner", "<filter name='inner'>\n<rule action='dorp' direction='in'/></filter>")
    with crowd.unchanged():
        crowd.cli("reload").refused("guest db", "tap vnet1", f"{path}:2")
    path.unlink()
    with crowd.unchanged():
        crowd.cli("reload").refused("no filter 'inner'")
    crowd.write_filter("inner", reference("outer"))
    with crowd.unchanged():
        crowd.cli("reload").refused("inner -> outer -> inner")


# --- records that don't tell the whole truth --------------------------------------------------------------------------


def test_a_tap_that_is_another_guests_by_now(site: Sandbox, wire: Wire) -> None:
    """A guest whose end we never heard of doesn't come back to a tap that another one has."""
    site.start("lost", "vnet0", "allow-arp")
    site.start("web", "vnet0", "no-mac-spoofing")
    rules = site.rules()
    assert site.define(filter_xml("allow-arp", drop_udp(9))).fine().out.endswith("0 taps changed\n")
    assert site.rules() == rules
    assert "0 taps changed" in site.cli("reload").fine().out
    site.cli("undefine", "allow-arp").fine()
    site.define(filter_xml("no-mac-spoofing", drop_udp(9))).fine()
    assert not wire.passes(udp(dport=9))


def test_a_record_that_cannot_be_read(crowd: Sandbox) -> None:
    """It is reported and moved aside; the other guests are updated."""
    (record,) = [
        path for path in (crowd.state_dir / "domains").glob("*.json") if json.loads(path.read_text())["guest"] == "db"
    ]
    record.write_text("{")
    ran = crowd.define(filter_xml("inner", drop_udp(10)))
    assert ran.status == 0
    assert str(record) in ran.err
    assert "changed: web vnet0" in ran.out
