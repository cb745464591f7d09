"""What `reconnect` knows again on Debian's kernel: rules that look at connections, and those that reject."""

from __future__ import annotations

import os
import re
from pathlib import Path
from unittest import mock

import pytest

from nwfilter_hook import hook
from nwfilter_hook.config import CONFIG_VARIABLE
from tests.support.domains import domain, interface
from tests.support.language import every_row
from tests.support.netns import REPOSITORY
from tests.vm.lan import Lan

pytestmark = pytest.mark.stock_kernel


def test_every_row_of_the_language(wire: Lan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With each attribute and sign, stateful: what the kernel has is what nft would give it; then a rule is altered."""
    (tmp_path / "every-row.xml").write_text(every_row(connections=True))
    conf = tmp_path / "nwfilter-hook.conf"
    conf.write_text(f"[paths]\nstate_dir = {tmp_path}/state\nfilter_dirs = {tmp_path}:{REPOSITORY}/filters\n")
    xml = domain("a", [interface(wire.a.tap, "every-row", mac=wire.a.mac)]).encode()

    def says(operation: str) -> str:
        with wire.host.inside(), mock.patch.dict(os.environ, {CONFIG_VARIABLE: str(conf)}):
            assert hook.run("a", operation, xml) == 0
        return capsys.readouterr().err

    assert says("start") == ""
    assert says("reconnect") == ""
    listed = wire.nft("--handle", "list", "table", "bridge", "nwfilter")
    found = re.search(rf"chain (from-l3/{wire.a.tap}\S*) {{[^}}]*?\t(\S[^\n]*ct state [^\n]*) # handle (\d+)\n", listed)
    assert found, listed
    chain, (words, handle) = f"bridge nwfilter {found[1]}", found.group(2, 3)
    wire.nft(script=f"replace rule {chain} handle {handle} {re.sub('ct state [^ ]+', 'ct state related', words)}\n")
    assert "repaired" in says("reconnect")
    assert says("reconnect") == ""
