"""
Kill the service at many moments, and say what the kernel has then.

Standard input: JSON with `seed`, `times`, `damages` (nft scripts), `xml` (the guest's file) and `variants` (its
contents, in turn). It runs in a hypervisor's namespaces and environment, and forks: Python's start would take most of
the time, and no moment of ours would be met.

Standard output: a JSON object for each time: the listing `before` the service was started, and `after`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from nwfilter_hook.watch.service import watch

TAPS = ("vnet0", "vnet1")
LONGEST_S = 0.2
"""By then a service has put everything back and followed its guests."""


def listing() -> dict[str, list[str]]:
    """By tap, all that there is of it: chains, rules, and elements of maps; the order of rules aside."""
    done = subprocess.run(["nft", "-j", "-s", "list", "ruleset"], check=True, capture_output=True, text=True)
    texts: list[str] = []
    for each in json.loads(done.stdout)["nftables"]:
        ((kind, about),) = each.items()
        about.pop("handle", None)
        elements = about.pop("elem", [])
        texts += [json.dumps([kind, about])] if kind in ("chain", "rule") else []
        texts += [json.dumps([about["name"], element]) for element in elements]
    return {tap: sorted(text for text in texts if tap in text) for tap in TAPS}


def settled() -> dict[str, list[str]]:
    """What is there when an nft that outlives the service has ended, too."""
    while subprocess.run(["pgrep", "-x", "-P", "1", "nft"], check=False, stdout=subprocess.DEVNULL).returncode == 0:
        time.sleep(0.005)
    return listing()


def main() -> None:
    """Do it."""
    given = json.load(sys.stdin)
    chance = random.Random(given["seed"])
    for number in range(given["times"]):
        subprocess.run(["nft", "-f", "-"], input=chance.choice(given["damages"]), text=True, check=False)
        Path(given["xml"]).write_text(given["variants"][number % len(given["variants"])])
        before = listing()
        pid = os.fork()
        if not pid:
            try:
                watch()
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0, LONGEST_S))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print(json.dumps({"before": before, "after": settled()}), flush=True)


if __name__ == "__main__":
    main()
