"""What the tests with frames share: the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.netns import Wire


@pytest.fixture
def wire(able: None) -> Iterator[Wire]:
    """A bridge with the taps vnet0 and vnet1, a guest at the end of each."""
    with Wire() as wire:
        yield wire
