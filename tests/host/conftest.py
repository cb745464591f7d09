"""What the tests of hook and commands share: a sandbox; a host without a kernel, and one with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.sandbox import Sandbox, Snapshot
from tests.host.site import Site
from tests.support.netns import Wire


@pytest.fixture(scope="session")
def bystander(able: None) -> Snapshot:
    """A sandbox's contents when only the bystander runs."""
    with Sandbox() as box:
        return box.only_bystander()


@pytest.fixture
def box(bystander: Snapshot) -> Iterator[Sandbox]:
    """A sandbox in which the bystander runs; at the end it must still be as it was."""
    with Sandbox(bystander) as box:
        yield box
        box.check_bystander()


@pytest.fixture
def library(tmp_path: Path) -> Site:
    """A host on which no guest runs."""
    return Site(tmp_path)


@pytest.fixture
def site(able: None) -> Iterator[Site]:
    """A host with the taps vnet0 and vnet1 in a bridge."""
    with Wire() as wire:
        yield Site(wire.directory, wire)
