"""What the tests of the hook as a process share: the sandbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hook.sandbox import Sandbox, Snapshot


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
