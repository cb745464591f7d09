"""
What tests/watch shows of devices that no guard sees, shown again on Debian's kernel, which takes no chain for a device
that isn't there: what comes is closed when the kernel tells of it.
"""

from __future__ import annotations

import pytest

from tests.watch.conftest import hypervisor
from tests.watch.test_held import guarded, test_a_routed_tap, test_nothing_opens, test_until_libvirt_tells

pytestmark = [pytest.mark.vm, pytest.mark.stock_kernel]

__all__ = ["guarded", "hypervisor", "test_a_routed_tap", "test_nothing_opens", "test_until_libvirt_tells"]
