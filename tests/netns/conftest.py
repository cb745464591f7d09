"""What the tests with frames share: the wire."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Wire


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
def wire(able: None) -> Iterator[Wire]:
    """A bridge with the taps vnet0 and vnet1, a guest at the end of each."""
    with Wire() as wire:
        yield wire
