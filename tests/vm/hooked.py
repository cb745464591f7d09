"""
The product where the bridge of a `Lan` is, as libvirt and an administrator use it: hooks, and what `show` has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from nwfilter_hook import hook
from nwfilter_hook.config import CONFIG_VARIABLE, read_config
from nwfilter_hook.host import open_host
from nwfilter_hook.operations.show import TapView, read_views
from tests.support.domains import Parameters, domain, interface
from tests.support.netns import REPOSITORY
from tests.vm.lan import Lan, Station


class Hooked:
    """
    Guests under filter.

    Args:
        directory: for filters, records and the configuration.
        text: of the configuration, beside the paths.
    """

    def __init__(self, lan: Lan, directory: Path, text: str = "") -> None:
        self._lan = lan
        self._filters = directory / "filters"
        self._filters.mkdir()
        self._conf = directory / "nwfilter-hook.conf"
        paths = f"[paths]\nstate_dir = {directory}/state\nfilter_dirs = {self._filters}:{REPOSITORY}/filters\n"
        self._conf.write_text(f"{paths}{text}\n")

    def define(self, name: str, *rules: str) -> None:
        """A filter of these rules, one on each line from the second on."""
        (self._filters / f"{name}.xml").write_text("\n".join([f"<filter name='{name}'>", *rules, "</filter>"]))

    def start(self, guest: Station, filter_name: str, parameters: Parameters = (), *, bridge: str = "br0") -> None:
        """The guest starts."""
        assert self.hook(guest, "start", filter_name, parameters, bridge=bridge) == 0

    def stop(self, guest: Station, filter_name: str) -> None:
        """It stops."""
        for operation in ("stopped", "release"):
            assert self.hook(guest, operation, filter_name) == 0

    def hook(
        self, guest: Station, operation: str, filter_name: str, parameters: Parameters = (), *, bridge: str = "br0"
    ) -> int:
        """The exit status of a hook."""
        xml = domain(str(guest), [interface(guest.tap, filter_name, parameters, mac=guest.mac, bridge=bridge)])
        with self.inside():
            return hook.run(str(guest), operation, xml.encode())

    def shown(self) -> dict[str, TapView]:
        """What `show` has, by guest."""
        with self.inside():
            views = read_views(open_host(read_config(), print, readonly=True))
        return {view.guest: view for view in views}

    @contextmanager
    def inside(self) -> Iterator[None]:
        """In the host's namespace, with its configuration."""
        with self._lan.host.inside(), mock.patch.dict(os.environ, {CONFIG_VARIABLE: str(self._conf)}):
            yield
