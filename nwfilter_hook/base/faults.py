"""
Faults of one text, collected, so that a person is told of all of them at once.
"""

from __future__ import annotations

from types import TracebackType

from .errors import InputError

MAX_FAULTS = 1000
"""Of one text; more are not looked for."""


class Faults:
    """
    A list of faults that is also a context: `with faults:` collects the fault that is raised inside, and goes on after.
    """

    def __init__(self) -> None:
        self._found: list[InputError] = []

    def __len__(self) -> int:
        return len(self._found)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(error, InputError):
            return False
        self._found.append(error)
        return True

    def add(self, fault: InputError) -> None:
        """Collect `fault`."""
        self._found.append(fault)

    @property
    def too_many(self) -> bool:
        """Whether it is time to stop looking."""
        return len(self._found) >= MAX_FAULTS

    def raise_first(self) -> None:
        """
        Raise the first by line, if there is one; the others are its `more`.

        Raises:
            InputError
        """
        if not self._found:
            return
        found = sorted(self._found, key=lambda fault: fault.source.line)
        if self.too_many:
            last = found[MAX_FAULTS - 1]
            found[MAX_FAULTS - 1 :] = [type(last)(f"{MAX_FAULTS} faults or more; no more are shown", last.source)]
        found[0].more = tuple(found[1:])
        raise found[0]
