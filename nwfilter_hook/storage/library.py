"""
The filter library: directories in order of precedence, one XML file per filter, named after it.

    /etc/nwfilter-hook/filters/NAME.xml          the administrator's, win; `define` writes here, the first directory
    /usr/share/nwfilter-hook/filters/NAME.xml    the stock filters

A library reads a file when its filter is asked for, once. Files whose name begins with "." or doesn't end in ".xml"
(editors' copies) are nobody's filter.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence

from ..base.errors import FilterSyntaxError, Source, StateError, SystemErrorAs, UnknownFilter
from ..base.text import did_you_mean
from ..base.xml import MAX_BYTES
from ..filters.model import Filter
from ..trust import distrust

_TEMPORARY = ".define-{}.new"


class Library:
    """
    Filters by name.

    Args:
        directories: in order of precedence; one that isn't there holds no filters.
        defined: filters to use as if the first directory held them.
        hidden: files to treat as deleted.
        trusting: True to read files that others may write, too: nothing comes into force.
    """

    def __init__(
        self,
        directories: Sequence[str],
        *,
        defined: Mapping[str, Filter] | None = None,
        hidden: frozenset[str] = frozenset(),
        trusting: bool = False,
    ) -> None:
        self.directories = tuple(map(os.path.normpath, directories))
        self._filters: dict[str, Filter] = dict(defined or {})
        self._data: dict[str, bytes] = {}
        self._seen: dict[str, tuple[int, ...] | None] = {}
        self._hidden = hidden
        self._trusting = trusting
        self._trusted: set[str] = set()

    def read(self, name: str, wanted_by: Source) -> Filter:
        """
        The filter `name`; `wanted_by` is the reference to it, for the message if there is none.

        Raises:
            UnknownFilter: no directory holds it, or others than root may write there.
            XmlSyntaxError, FilterSyntaxError: its file is wrong, or holds a filter of another name.
        """
        if name not in self._filters:
            self._filters[name] = self._read(name, wanted_by)
        return self._filters[name]

    def with_filter(self, definition: Filter) -> Library:
        """The same library as if the first directory held `definition`; filters that were read are not read again."""
        return self._copy({**self._filters, definition.name: definition}, self._hidden)

    def without_file(self, name: str, path: str) -> Library:
        """The same library without the file `path` of the filter `name`."""
        return self._copy({key: each for key, each in self._filters.items() if key != name}, self._hidden | {path})

    def _copy(self, filters: Mapping[str, Filter], hidden: frozenset[str]) -> Library:
        return Library(self.directories, defined=filters, hidden=hidden, trusting=self._trusting)

    def data_of(self, path: str) -> bytes:
        """
        What is in a file of the library, and was when its filter was read.

        Raises:
            OSError
        """
        if path not in self._data:
            self._seen[path] = _signature(path)
            self._data[path] = read_filter_file(path)
        return self._data[path]

    def is_current(self) -> bool:
        """Whether every file that was read, or looked for in vain, is still as it was."""
        return all(_signature(path) == seen for path, seen in self._seen.items())

    def read_anew(self) -> Library:
        """The same library, of which nothing has been read yet."""
        return Library(self.directories, trusting=self._trusting)

    def paths(self, name: str) -> list[str]:
        """The files that hold `name`, the one that wins first."""
        candidates = (os.path.join(directory, f"{name}.xml") for directory in self.directories)
        return [path for path in candidates if path not in self._hidden and os.path.lexists(path)]

    def names(self) -> list[str]:
        """Every name that `read` may know, sorted; files that are no filters' are left out."""
        found: set[str] = set(self._filters)
        for directory in self.directories:
            try:
                found.update(entry[:-4] for entry in os.listdir(directory) if entry.endswith(".xml"))
            except OSError:
                continue  # a directory that isn't there is an empty one; reading a filter reports what matters
        return sorted(name for name in found if name and not name.startswith("."))

    def _read(self, name: str, wanted_by: Source) -> Filter:
        for directory in self.directories:
            path = os.path.join(directory, f"{name}.xml")
            if path in self._hidden:
                continue
            self._trust(directory, name, wanted_by)
            try:
                data = self.data_of(path)
            except FileNotFoundError:
                if not os.path.islink(path):
                    continue
                raise UnknownFilter(f"filter {name!r} can't be read: {path} links to nothing", wanted_by) from None
            except OSError as error:
                raise UnknownFilter(f"filter {name!r} can't be read: {error.strerror}: {path}", wanted_by) from error
            self._trust(path, name, wanted_by)
            from ..filters.parse import parse_filter  # who only stops a guest reads no filter

            found = parse_filter(data, path)
            if found.name != name:
                raise FilterSyntaxError(f"this file must hold filter {name!r}, it holds {found.name!r}", found.source)
            return found
        where = ":".join(self.directories) or "no directory"
        near = did_you_mean(name, self.names())
        raise UnknownFilter(f"no filter {name!r} in {where}{near or '; put ' + name + '.xml there'}", wanted_by)

    def _trust(self, path: str, name: str, wanted_by: Source) -> None:
        if self._trusting or path in self._trusted:
            return
        fault = distrust(path)
        if fault:
            raise UnknownFilter(f"filter {name!r} is not looked for where others may write: {fault}", wanted_by)
        self._trusted.add(path)

    # --- writing, into the first directory only -----------------------------------------------------------------------

    def path_of(self, name: str) -> str:
        """Where `define` puts the filter."""
        return os.path.join(self.directories[0], f"{name}.xml")

    def temporary_of(self, name: str) -> str:
        """Where `write_temporary` writes the filter's new text, beside its file."""
        return os.path.join(self.directories[0], _TEMPORARY.format(name))

    def write_temporary(self, name: str, text: str) -> None:
        """
        Write a filter's new text beside its file, safely on the disk; `rename_temporary` puts it in place.

        Raises:
            StateError: it can't be written; nothing is left of it.
        """
        path = self.temporary_of(name)
        try:
            os.makedirs(self.directories[0], mode=0o755, exist_ok=True)
            fault = distrust(self.directories[0])
            if fault:
                raise StateError(f"filters are not kept where others may write: {fault}")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise StateError(f"{path} can't be written: {error.strerror}") from error

    def rename_temporary(self, name: str) -> None:
        """Put the text of `write_temporary` in place. Raises StateError."""
        with SystemErrorAs(StateError, f"{self.path_of(name)} can't be replaced"):
            os.replace(self.temporary_of(name), self.path_of(name))

    def remove(self, name: str) -> None:
        """Remove the filter's file from the first directory. Raises StateError."""
        with SystemErrorAs(StateError, f"{self.path_of(name)} can't be removed"):
            os.unlink(self.path_of(name))

    def discard(self, temporary: str) -> None:
        """Throw away what `write_temporary` wrote, if it is still there (and nothing else, whatever the path says)."""
        directory, base = os.path.split(temporary)
        if directory == self.directories[0] and base.startswith(".define-") and base.endswith(".new"):
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_filter_file(path: str) -> bytes:
    """The bytes of one filter file, one more than accepted at most. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
