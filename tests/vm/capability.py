"""Whether the running kernel has all that the L3 rules need, asked by loading such rules."""

from __future__ import annotations

import functools
import subprocess

# One rule for each thing that a custom-built kernel tends to lack.
PROBE = """
table bridge probe {
    set count { type ipv4_addr; size 16; flags dynamic; }
    chain probe {
        type filter hook prerouting priority -150; policy accept;
        ct state new ct direction original counter
        meta ibrname "br0" counter
        add @count { ip saddr ct count over 1 } counter
        reject
    }
}
"""


@functools.cache
def bridge_family_is_complete() -> bool:
    """Load PROBE in a network namespace that is gone afterwards."""
    nft = ["unshare", "--net", "nft", "-f", "-"]
    done = subprocess.run(nft, input=PROBE.encode(), capture_output=True, check=False)
    return done.returncode == 0
