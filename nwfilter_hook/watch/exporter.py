"""
The service's own page for Prometheus: GET /metrics, by prometheus_client.

In:  ADDRESS:PORT of the configuration, an address of this host.
Out: a server in threads of its own; each scrape reads what there is then. What goes wrong with it is told, and the
     rules are watched all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ..base.errors import ConfigError, NwfilterHookError
from ..base.said import SERVICE, WARNING, Said
from ..operations.exposition import Collector, load_client
from ..operations.metrics import Family, down, read_families
from .hosts import Hosts, say


class Exporter:
    """The server; `start` doesn't fail."""

    def __init__(self, listen: str) -> None:
        self._listen = listen
        self._hosts = Hosts()
        self._one = threading.Lock()
        self._server: object = None

    def start(self) -> None:
        """Listen, if that is possible."""
        address, _, port = self._listen.rpartition(":")
        try:
            client = load_client()
            registry = client.CollectorRegistry(auto_describe=False)
            registry.register(Collector(self._read))
            self._server = client.start_http_server(int(port), address.strip("[]"), registry)
        except (NwfilterHookError, OSError) as error:
            say(Said(f"no metrics at {self._listen}: {error}", WARNING))
        else:
            say(Said(f"metrics at http://{self._listen}/metrics", SERVICE))

    def _read(self) -> Iterable[Family]:
        with self._one:  # a host is one thread's
            try:
                return read_families(self._hosts.now())
            except ConfigError:
                return down()
