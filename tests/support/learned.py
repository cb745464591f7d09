"""What the command line says and does about learned addresses, run in a wire's namespace."""

from __future__ import annotations

import json
from typing import Any

from tests.support.netns import Wire


def command(wire: Wire, *arguments: str, check: bool = True) -> str:
    """What the command line prints; if it is to fail (`check` is False), its message."""
    done = wire.command(*arguments)
    assert done.returncode == (0 if check else 1), done
    return done.stdout if check else done.stderr.strip().removeprefix("nwfilter-hook: ")


def shown(wire: Wire, tap: str = "") -> dict[str, Any]:
    """What `show --json` says about a tap, or about the one that is under filter."""
    (view,) = [each for each in json.loads(command(wire, "show", "--json")) if not tap or each["tap"] == tap]
    assert isinstance(view, dict)
    return view


def learned(wire: Wire, tap: str = "") -> list[str]:
    """The addresses that the kernel has learned for it, sorted."""
    return sorted(shown(wire, tap)["learned"])
