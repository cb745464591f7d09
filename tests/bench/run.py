"""
Figures, not tests: how long things take here, as ratios of two things measured in turn in one run.

    python tests/bench/run.py [GROUP ...] [--json FILE] [--taps N] [--rounds N]

Groups: hook, growth, reconnect, at-once, redefine, packets, and (only if named) libvirt. Everything happens in private
namespaces. README.md beside this file says how it is measured, and what the last figures were. Nothing fails here but
what doesn't work at all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.figures import HEAD, Figure, absolute, as_json, compare, line, of_pairs  # noqa: E402
from tests.bench.guests import Guests  # noqa: E402
from tests.bench.libvirt import against_libvirt  # noqa: E402
from tests.bench.packets import FloodedWire  # noqa: E402
from tests.bench.redefine import redefinitions  # noqa: E402

AT_ONCE = 200
RECONNECTS = 400
MANY = 1000
FRAMES = 50_000


def bench_hook(taps: int, rounds: int) -> Iterator[Figure]:
    """A hook that has nothing to do, and each that has, with `taps` taps under filter."""
    with closing(Guests(taps + 1)) as guests:
        guests.fill(taps)
        bare = guests.python()
        idle, unfiltered = guests.hook(taps, "started"), guests.hook(taps, "start", reference=False)
        prepare, start, stopped = (guests.hook(taps, each) for each in ("prepare", "start", "stopped"))
        python = partial(guests.ms, bare)
        by = f"python3 -I -c pass, {taps} taps"
        yield compare("hook: nothing to do (started)", by, lambda: guests.ms(idle), python, goal=1.5, rounds=rounds)
        name = "hook: nothing to do (no filterref)"
        yield compare(name, by, lambda: guests.ms(unfiltered), python, goal=1.5, rounds=rounds)
        yield compare("hook: prepare", by, lambda: guests.ms(prepare), python, goal=3, rounds=rounds)
        make = guests.nft(guests.script(taps, "start"), "make")
        guests.run([start])
        unmake = guests.nft(guests.script(taps, "stopped"), "unmake")
        guests.run([stopped])

        def by_hand() -> float:
            took = guests.ms(bare, make)
            guests.run([unmake])
            return took

        times: list[tuple[float, float]] = []

        def started() -> float:
            times.append((guests.ms(start), guests.ms(stopped)))
            return times[-1][0]

        yield compare("hook: start of one tap", "the same, and nft -f", started, by_hand, goal=2, rounds=rounds)
        yield of_pairs("hook: stopped", "start", [(end, begin) for begin, end in times], goal=1)
        memory = []
        for _ in range(3):
            memory.append(guests.megabytes(start))
            guests.run([stopped])
        yield absolute("hook: memory of a start", memory, goal=24, unit="MB")


def bench_growth(rounds: int) -> Iterator[Figure]:
    """A start among many taps, and among few."""
    with closing(Guests(MANY + 1)) as many, closing(Guests(11)) as few:
        many.fill(MANY)
        few.fill(10)

        def started(guests: Guests, number: int) -> float:
            took = guests.ms(guests.hook(number, "start"))
            guests.run([guests.hook(number, "stopped")])
            return took

        ours, reference = partial(started, many, MANY), partial(started, few, 10)
        yield compare(f"growth: start at {MANY} taps", "start at 10", ours, reference, goal=1.5, rounds=rounds)


def bench_reconnect(taps: int, rounds: int) -> Iterator[Figure]:
    """Guests that run are looked at, as libvirtd does it when it is restarted."""
    with closing(Guests(max(taps, RECONNECTS))) as guests:
        guests.fill(taps)
        reconnect, idle = guests.hook(taps - 1, "reconnect"), guests.hook(taps - 1, "started")
        guests.run([reconnect])
        name = f"reconnect: everything in place, {taps} taps"
        yield compare(
            name, "hook, nothing to do", lambda: guests.ms(reconnect), lambda: guests.ms(idle), goal=1.5, rounds=rounds
        )
        guests.fill(RECONNECTS)
        every = [guests.hook(number, "reconnect") for number in range(RECONNECTS)]
        untouched = [guests.run(every)[1] / 1000 for _ in range(3)]
        yield absolute(f"reconnect: {RECONNECTS} at once, untouched", untouched, goal=15, unit="s")
        flushed = []
        for _ in range(3):
            guests.host.run("nft", "flush", "ruleset")
            flushed.append(guests.run(every)[1] / 1000)
        yield absolute(f"reconnect: {RECONNECTS} at once, after a flush", flushed, goal=30, unit="s")


def bench_at_once(rounds: int) -> Iterator[Figure]:
    """Many guests start, and stop, at the same moment."""
    with closing(Guests(AT_ONCE)) as guests:
        whole: dict[str, list[tuple[float, float]]] = {"start": [], "stopped": []}
        waits: dict[str, list[tuple[float, float]]] = {"start": [], "stopped": []}
        for _ in range(rounds):
            one_by_one = {}
            for operation in whole:
                commands = [guests.hook(number, operation) for number in range(AT_ONCE)]
                one_by_one[operation] = guests.ms(*commands)
            for operation, pairs in whole.items():
                each, took = guests.run([guests.hook(number, operation) for number in range(AT_ONCE)])
                pairs.append((took, one_by_one[operation]))
                times = sorted(wall for wall, *_ in each)
                waits[operation].append((times[-1], times[len(times) // 2]))
        for operation, pairs in whole.items():
            name = f"at once: {AT_ONCE} x {operation}"
            yield of_pairs(name, "one after another, the sum", pairs, goal=1.3)
            yield of_pairs(f"{name}, who waits longest", "the median wait", waits[operation], goal=2)


def bench_redefine(rounds: int) -> Iterator[Figure]:
    """A filter is redefined that many taps use."""
    for taps, seconds, megabytes in redefinitions((400, MANY), rounds):
        goal_s, goal_mb = {400: (1, 150), MANY: (3, 150)}[taps]
        yield absolute(f"redefinition: {taps} taps", seconds, goal=goal_s, unit="s")
        yield absolute(f"redefinition: {taps} taps, memory with nft", megabytes, goal=goal_mb, unit="MB")


def bench_packets(taps: int, rounds: int) -> Iterator[Figure]:
    """Small UDP packets from the last of `taps` taps through the bridge."""
    with FloodedWire(taps) as wire:

        def blasted(prepare: Callable[[], None]) -> float:
            prepare()
            try:
                return wire.blast(FRAMES) / 1000
            finally:
                wire.flush()

        ours, hand, bare = (partial(blasted, each) for each in (wire.install, wire.install_by_hand, lambda: None))
        name = f"packets: through the last of {taps} taps"
        by_hand = "three rules of nft by hand, one tap"
        yield compare(name, "a bridge without rules", ours, bare, goal=0.8, rounds=rounds, unit="kpps", more=True)
        yield compare(name, by_hand, ours, hand, goal=0.8, rounds=rounds, unit="kpps", more=True)


@click.command()
@click.argument("groups", nargs=-1)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures here for programs, too.")
@click.option("--taps", default=400, show_default=True, help="So many taps are under filter.")
@click.option("--rounds", default=11, show_default=True, help="Pairs of which the median is taken.")
def main(groups: tuple[str, ...], path: Path | None, taps: int, rounds: int) -> None:
    """Print a table: what, ours, reference, ratio of paired runs, goal, met or not."""
    if os.geteuid() != 0:
        raise click.ClickException("run this as root: it makes namespaces")
    few = max(1, rounds // 5)
    benches = {
        "hook": lambda: bench_hook(taps, rounds),
        "growth": lambda: bench_growth(rounds),
        "reconnect": lambda: bench_reconnect(taps, rounds),
        "at-once": lambda: bench_at_once(few),
        "redefine": lambda: bench_redefine(few + 1),
        "packets": lambda: bench_packets(MANY, rounds),
        "libvirt": lambda: against_libvirt(taps, few + 1),
    }
    unknown = [each for each in groups if each not in benches]
    if unknown:
        raise click.UsageError(f"no such group: {', '.join(unknown)}; there are {', '.join(benches)}")
    if rounds < 1 or not 1 <= taps <= MANY:
        raise click.UsageError(f"--rounds is at least 1, --taps from 1 to {MANY}")
    click.echo(HEAD)
    figures: list[Figure] = []
    for group in groups or [each for each in benches if each != "libvirt"]:
        for figure in benches[group]():
            figures.append(figure)
            click.echo(line(figure))
    if path:
        path.write_text(as_json(figures) + "\n")


if __name__ == "__main__":
    main()
