"""What the command line says and does about learned addresses, run in a wire's namespace."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.support.netns import REPOSITORY, Wire

_MAIN = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from nwfilter_hook.cli.main import main; main()"


def command(wire: Wire, *arguments: str, check: bool = True) -> str:
    """What the command line prints; if it is to fail (`check` is False), its message."""
    done = wire.run(
        sys.executable, "-c", _MAIN, *arguments, check=check, environment=wire.hook_environment(), own_sysfs=True
    )
    assert check or done.returncode == 1
    return done.stdout if check else done.stderr.strip().removeprefix("nwfilter-hook: ")


def shown(wire: Wire, tap: str = "") -> dict[str, Any]:
    """What `show --json` says about a tap, or about the one that is under filter."""
    (view,) = [each for each in json.loads(command(wire, "show", "--json")) if not tap or each["tap"] == tap]
    assert isinstance(view, dict)
    return view


def learned(wire: Wire, tap: str = "") -> list[str]:
    """The addresses that the kernel has learned for it, sorted."""
    return sorted(shown(wire, tap)["learned"])
