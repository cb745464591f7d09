"""nwfilter-hook test --kernel where the kernel follows connections: packets are sent in the states that cases say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nwfilter_hook.cli.main import cli
from tests.support.netns import REPOSITORY

pytestmark = pytest.mark.stock_kernel

FILTERS = REPOSITORY / "packaging/examples"
SERVER = """
filter: test-eth0
parameters: {IP: 192.0.2.10}
cases:
  - {to-guest: {tcp: true, dst: ":22"}, expect: pass, rule: test-eth0:6}
  - {to-guest: {tcp: true, dst: ":80"}, expect: pass, rule: test-eth0:7}
  - {to-guest: {tcp: true, dst: ":80", flags: ack}, state: established, expect: pass, rule: test-eth0:7}
  - {from-guest: {tcp: true, src: ":80", flags: "syn,ack"}, expect: pass, rule: test-eth0:7}
  - {from-guest: {tcp: true, src: ":80", flags: ack}, state: established, reply: true, expect: pass, rule: test-eth0:7}
  - {from-guest: {tcp: true, src: ":80"}, state: new, expect: drop, rule: test-eth0:13}
  - {to-guest: {tcp: true, dst: ":443"}, expect: drop, rule: test-eth0:13}
  - {from-guest: {icmp: 8}, expect: pass, rule: test-eth0:10}
  - {from-guest: {icmp: 8}, state: established, expect: pass, rule: test-eth0:10}
  - {to-guest: {icmp: 0}, expect: pass, rule: test-eth0:10}
  - {to-guest: {icmp: 8}, expect: drop, rule: test-eth0:13}
  - {from-guest: {udp: true, dst: ":53"}, expect: drop, rule: test-eth0:13}
  - {to-guest: {udp: true, src: ":53"}, expect: drop, rule: test-eth0:13}
  - {to-guest: {icmp: 3/3}, expect: drop, rule: test-eth0:13}
"""
SIX = """
filter: six
cases:
  - {from-guest: {icmpv6: echo-request}, expect: pass, rule: six:1}
  - {to-guest: {icmpv6: echo-reply}, expect: pass, rule: six:1}
  - {to-guest: {icmpv6: echo-request}, expect: drop, rule: six:2}
  - {from-guest: {udp: true, ipv6: true}, expect: drop, rule: six:2}
  - {from-guest: {udp: true, ipv6: true}, state: established, expect: drop, rule: six:2}
"""
KEPT = """
filter: test-eth0
parameters: {IP: 192.0.2.10}
cases:
  - {to-guest: {udp: true, dst: ":53", fragment: first}, expect: drop}
  - {to-guest: {udp: true, fragment: later}, expect: drop}
  - {from-guest: {udp: true, dst: ":53", fragment: first}, expect: drop}
  - {to-guest: {tcp: true, dst: ":80"}, expect: pass, rule: test-eth0:7}
"""
FILTER = (
    "<filter name='six' chain='root'><rule action='accept' direction='out'><icmpv6/></rule>\n"
    "<rule action='drop' direction='inout'><all-ipv6/></rule></filter>"
)


@pytest.mark.parametrize("text", [SERVER, SIX], ids=["test-eth0", "ipv6"])
def test_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """As the evaluator has it, so has the kernel."""
    (tmp_path / "six.xml").write_text(FILTER)
    (tmp_path / "none.conf").touch()
    monkeypatch.setenv("NWFILTER_HOOK_CONF", str(tmp_path / "none.conf"))
    (tmp_path / "cases.yaml").write_text(text)
    for how in ([], ["--kernel"]):
        arguments = ["test", *how, str(tmp_path), "--filters", str(FILTERS), "--json"]
        found = json.loads(CliRunner().invoke(cli, arguments).output)
        assert [each for each in found if each["outcome"] != "passed"] == []
        assert len(found) == text.count("expect:")


def test_a_packet_that_the_kernel_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fragment waits for the others before the rules see it: that is no verdict, and the next packet has its own."""
    (tmp_path / "none.conf").touch()
    monkeypatch.setenv("NWFILTER_HOOK_CONF", str(tmp_path / "none.conf"))
    (tmp_path / "cases.yaml").write_text(KEPT)
    arguments = ["test", "--kernel", str(tmp_path), "--filters", str(FILTERS), "--json"]
    found = json.loads(CliRunner().invoke(cli, arguments).output)
    assert [each["outcome"] for each in found] == ["untried", "untried", "untried", "passed"], found
