"""What the tests of the library share: a host without a kernel, and one with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.library.site import Site
from tests.support.netns import Wire


@pytest.fixture
def library(tmp_path: Path) -> Site:
    """A host on which no guest runs."""
    return Site(tmp_path)


@pytest.fixture(scope="session")
def able() -> None:
    """Skip, naming what is missing, where no wire can be laid."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not Path("/dev/net/tun").exists():
        pytest.skip("/dev/net/tun is missing: modprobe tun")
    for program in ("nft", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install nftables iproute2")


@pytest.fixture
def site(able: None) -> Iterator[Site]:
    """A host with the taps vnet0 and vnet1 in a bridge."""
    with Wire() as wire:
        yield Site(wire.directory, wire)
