"""
Digests, without OpenSSL: `hashlib` loads that for each process anew, 2 ms of a hook's time, for what Python has itself.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256 as sha256
else:
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256 as sha256
        else:
            from _sha256 import sha256 as sha256
    except ImportError:  # a Python that was built to have OpenSSL's alone
        from hashlib import sha256 as sha256
