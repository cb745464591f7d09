"""
The filter library: directories in order of precedence, one XML file per filter, named after it.

    /etc/nwfilter-hook/filters/NAME.xml          the administrator's, win
    /usr/share/nwfilter-hook/filters/NAME.xml    the stock filters

A library reads a file when its filter is asked for, once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from .errors import FilterSyntaxError, Source, UnknownFilter, did_you_mean
from .filter_xml import parse_filter
from .model import Filter
from .xml import MAX_BYTES


class Library:
    """
    Filters by name.

    Args:
        directories: in order of precedence; one that isn't there holds no filters.
    """

    def __init__(self, directories: Sequence[str]) -> None:
        self.directories = tuple(directories)
        self._filters: dict[str, Filter] = {}

    def read(self, name: str, wanted_by: Source) -> Filter:
        """
        The filter `name`; `wanted_by` is the reference to it, for the message if there is none.

        Raises:
            UnknownFilter: no directory holds it.
            XmlSyntaxError, FilterSyntaxError: its file is wrong, or holds a filter of another name.
        """
        if name not in self._filters:
            self._filters[name] = self._read(name, wanted_by)
        return self._filters[name]

    def names(self) -> list[str]:
        """Every name that `read` may know, sorted; files that are no filters' are left out."""
        found: set[str] = set()
        for directory in self.directories:
            try:
                found.update(entry[:-4] for entry in os.listdir(directory) if entry.endswith(".xml"))
            except OSError:
                continue  # a directory that isn't there is an empty one; reading a filter reports what matters
        return sorted(name for name in found if name and not name.startswith("."))

    def _read(self, name: str, wanted_by: Source) -> Filter:
        for directory in self.directories:
            path = os.path.join(directory, f"{name}.xml")
            try:
                data = read_filter_file(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UnknownFilter(f"filter {name!r} can't be read: {error.strerror}: {path}", wanted_by) from error
            found = parse_filter(data, path)
            if found.name != name:
                raise FilterSyntaxError(f"this file must hold filter {name!r}, it holds {found.name!r}", found.source)
            return found
        where = ":".join(self.directories) or "no directory"
        near = did_you_mean(name, self.names())
        raise UnknownFilter(f"no filter {name!r} in {where}{near or '; put ' + name + '.xml there'}", wanted_by)


def read_filter_file(path: str) -> bytes:
    """The bytes of one filter file, one more than accepted at most. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)
