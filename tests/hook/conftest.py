"""What the tests of the hook as a process share: the sandbox."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.hook.sandbox import Sandbox, Snapshot


@pytest.fixture(scope="session")
def bystander() -> Snapshot:
    """A sandbox's contents when only the bystander runs."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for program in ("nft", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install nftables iproute2")
    with Sandbox() as box:
        return box.only_bystander()


@pytest.fixture
def box(bystander: Snapshot) -> Iterator[Sandbox]:
    """A sandbox in which the bystander runs; at the end it must still be as it was."""
    with Sandbox(bystander) as box:
        yield box
        box.check_bystander()
