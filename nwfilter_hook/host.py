"""
Where we run: configuration, filter library, back end and state in one value.

In:  a `Config`.
Out: a `Host`, which every operation takes.
"""

from __future__ import annotations

from collections.abc import Callable

from .backend import Backend
from .base.dataclass import dataclass
from .capabilities import Survey
from .config import Config
from .guards import Guard
from .nftables.backend import NftBackend
from .nftables.process import Nft
from .storage.guard import configured, read_guard
from .storage.library import Library
from .storage.state import State

Report = Callable[[str], None]


@dataclass(frozen=True)
class Host:
    """
    Where we run.

    Attributes:
        report: called with one line for everything this guest's administrator should know although we went on.
        log: the same for what is about another guest.
    """

    config: Config
    library: Library
    backend: Backend
    state: State
    report: Report
    log: Report

    @property
    def guard(self) -> Guard | None:
        """The guard, if it is on: read anew each time, and to be relied on while the lock is held."""
        return read_guard(self.state.path, lambda: configured(self.config), self.report)


def open_survey(config: Config) -> Survey:
    """What kernel and program of the back end can do."""
    from .nftables.survey import NftSurvey

    return NftSurvey(Nft(config.nft, config.timeout_s))


def open_host(config: Config, report: Report, log: Report | None = None, *, readonly: bool = False) -> Host:
    """The host that `config` describes; touches nothing yet; `readonly` only looks at the state."""
    state = State(config.state_dir, report, readonly=readonly)
    nft = Nft(config.nft, config.timeout_s, state.lock_descriptors)
    return Host(
        config=config,
        library=Library(config.filter_dirs),
        backend=NftBackend(nft, config.counters, state.read_capabilities, state.write_capabilities, config.connections),
        state=state,
        report=report,
        log=log or report,
    )
