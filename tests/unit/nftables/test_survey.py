"""What a kernel can't do is said of every feature that is asked for."""

from __future__ import annotations

from nwfilter_hook.nftables.features import SYMBOLS
from nwfilter_hook.nftables.survey import USES


def test_every_feature_is_good_for_something() -> None:
    """In words, for doctor."""
    assert set(USES) == set(SYMBOLS)
    assert all(USES.values())
