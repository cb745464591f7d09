"""What the tests of the library share: a host without a kernel, and one with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.library.site import Site
from tests.support.netns import Wire


@pytest.fixture
def library(tmp_path: Path) -> Site:
    """A host on which no guest runs."""
    return Site(tmp_path)


@pytest.fixture
def site(able: None) -> Iterator[Site]:
    """A host with the taps vnet0 and vnet1 in a bridge."""
    with Wire() as wire:
        yield Site(wire.directory, wire)
