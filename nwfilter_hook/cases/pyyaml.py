"""
PyYAML, which only test files need.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..base.errors import NwfilterHookError


def pyyaml() -> Any:
    """The module. Raises NwfilterHookError: it isn't installed."""
    try:
        return importlib.import_module("yaml")
    except ImportError:
        raise NwfilterHookError("tests for filters need PyYAML (Debian: python3-yaml), which isn't installed") from None
