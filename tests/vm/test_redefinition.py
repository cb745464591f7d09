"""Connections under a filter that is redefined: those that it still allows go on, those that it doesn't end."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest

from nwfilter_hook import hook
from nwfilter_hook.config import CONFIG_VARIABLE, read_config
from nwfilter_hook.host import open_host
from nwfilter_hook.operations.define import Update, define
from tests.support.domains import domain, interface
from tests.support.netns import REPOSITORY
from tests.vm.flows import Got, connected, exchange, listen, tcp
from tests.vm.lan import Lan

pytestmark = pytest.mark.stock_kernel

Define = Callable[[str], Update]
UUID = "11111111-1111-4111-8111-111111111111"


def filter_xml(*rules: str, final: str = "<rule action='drop' direction='inout'><all/></rule>") -> str:
    """The guest's filter: what it accepts, then drop."""
    return f"<filter name='mine'><uuid>{UUID}</uuid>{''.join(rules)}{final}</filter>"


def accept(port: int, direction: str = "in") -> str:
    """A rule for connections to a port."""
    return f"<rule action='accept' direction='{direction}'><tcp dstportstart='{port}'/></rule>"


@pytest.fixture
def redefine(wire: Lan, tmp_path: Path) -> Define:
    """Guest a runs under the filter `mine`, which accepts connections to 80 and 81; redefine(xml) changes it."""
    conf = tmp_path / "nwfilter-hook.conf"
    directories = f"{tmp_path}/filters:{REPOSITORY}/filters"
    conf.write_text(f"[paths]\nstate_dir = {tmp_path}/state\nfilter_dirs = {directories}\n")

    def redefine(xml: str) -> Update:
        with wire.host.inside(), mock.patch.dict(os.environ, {CONFIG_VARIABLE: str(conf)}):
            return define(open_host(read_config(), print), xml.encode(), "new.xml")

    redefine(filter_xml(accept(80), accept(81)))
    with wire.host.inside(), mock.patch.dict(os.environ, {CONFIG_VARIABLE: str(conf)}):
        xml = domain("a", [interface(wire.a.tap, "mine", mac=wire.a.mac)])
        assert hook.run("a", "start", xml.encode()) == 0
    return redefine


def test_connections_that_are_no_longer_allowed_end(wire: Lan, redefine: Define) -> None:
    """Without its rule an open connection is cut, in both directions; the one beside it goes on."""
    with ExitStack() as stack:
        http, other = (stack.enter_context(listen(wire.a, port)) for port in (80, 81))
        near, far = stack.enter_context(connected(wire.b, http))
        near2, far2 = stack.enter_context(connected(wire.b, other))
        assert exchange(near, far) is Got.ANSWER
        assert exchange(near2, far2) is Got.ANSWER
        assert redefine(filter_xml(accept(81), accept(82))).changed == (("a", wire.a.tap),)
        assert exchange(near2, far2) is Got.ANSWER
        assert exchange(near, far) is not Got.ANSWER
        assert exchange(far, near) is not Got.ANSWER
        assert exchange(near2, far2) is Got.ANSWER
    assert tcp(wire.b, wire.a, 80) is Got.NOTHING
    assert tcp(wire.b, wire.a, 82) is Got.ANSWER


def test_a_connection_lives_through_many_redefinitions(wire: Lan, redefine: Define) -> None:
    """As long as some version of the filter allows it, not a byte is lost."""
    with listen(wire.a, 80) as http, connected(wire.b, http) as (near, far):
        for number in range(10):
            redefine(filter_xml(accept(1000 + number), accept(80), accept(2000 + number, "out")))
            assert exchange(near, far) is Got.ANSWER
            assert exchange(far, near) is Got.ANSWER
