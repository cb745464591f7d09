"""
What tests/wire shows of guests on macvtap devices, shown again on Debian's kernel.

It is older than the kernel those tests may run on, and does some things another way: there a chain goes with its
device, and a broadcast frame to a macvtap always takes the long way.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.netns import Wire
from tests.wire.test_macvtap import test_a_lost_stop_and_a_new_device_of_that_name, test_two_guests_on_one_device

pytestmark = [pytest.mark.vm, pytest.mark.stock_kernel]

__all__ = ["test_a_lost_stop_and_a_new_device_of_that_name", "test_two_guests_on_one_device"]


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A bridge with the taps vnet0 and vnet1, a guest at the end of each."""
    with Wire() as wire:
        yield wire
