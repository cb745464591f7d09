"""
Starts processes and times them, without what entering a namespace costs: this file runs inside, as its own process.

In:  on standard input, a line of JSON for each question: [[[program, argument …], path of its standard input], …]; all
     of them are started at once.
Out: a line of JSON: for each [ms until it ended, ms that it and its children computed, MB at their most, exit status],
     and how many ms all took.
"""

from __future__ import annotations

import json
import os
import sys
import time


def run(commands: list[tuple[list[str], str]]) -> tuple[list[tuple[float, float, float, int]], float]:
    """See the module."""
    began: dict[int, tuple[int, float]] = {}
    found: dict[int, tuple[float, float, float, int]] = {}
    files = {path: os.open(path, os.O_RDONLY) for _, path in commands}
    nowhere = os.open("/dev/null", os.O_WRONLY)
    first = time.perf_counter()
    for number, (argv, path) in enumerate(commands):
        again = os.open(path, os.O_RDONLY)  # a position of its own
        actions = [
            (os.POSIX_SPAWN_DUP2, again, 0),
            (os.POSIX_SPAWN_DUP2, nowhere, 1),
            (os.POSIX_SPAWN_DUP2, nowhere, 2),
        ]
        start = time.perf_counter()
        began[os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)] = number, start
        os.close(again)
    while began:
        process, status, used = os.wait4(-1, 0)
        end = time.perf_counter()
        number, start = began.pop(process)
        computed = used.ru_utime + used.ru_stime
        code = os.waitstatus_to_exitcode(status)
        found[number] = ((end - start) * 1000, computed * 1000, used.ru_maxrss / 1024, code)
    whole = (time.perf_counter() - first) * 1000
    for descriptor in (*files.values(), nowhere):
        os.close(descriptor)
    return [found[number] for number in range(len(commands))], whole


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
