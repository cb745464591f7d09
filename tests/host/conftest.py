"""What the tests of hook and commands share: a host beside a bystander, one without a kernel, and one with a bridge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import BYSTANDER, BYSTANDER_TAP, Sandbox, Snapshot
from tests.support.netns import Wire


@pytest.fixture(scope="session")
def bystander(able: None) -> Snapshot:
    """A host's contents when only the bystander runs."""
    with Wire(()) as wire:
        box = Sandbox(wire.directory, wire)
        xml = box.start(BYSTANDER, BYSTANDER_TAP)
        return Snapshot(box.script_of(BYSTANDER, xml), box.save().files)


@pytest.fixture
def box(bystander: Snapshot) -> Iterator[Sandbox]:
    """A host in which the bystander runs; at the end it must still be as it was."""
    with Wire(()) as wire:
        box = Sandbox(wire.directory, wire)
        box.filters.mkdir()
        box.load(bystander)
        box.watch_bystander()
        yield box
        box.check_bystander()


@pytest.fixture
def library(tmp_path: Path) -> Sandbox:
    """A host on which no guest runs, and nft can't."""
    return Sandbox(tmp_path)


@pytest.fixture
def site(able: None) -> Iterator[Sandbox]:
    """A host with the taps vnet0 and vnet1 in a bridge."""
    with Wire() as wire:
        yield Sandbox(wire.directory, wire)
