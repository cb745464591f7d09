"""
Every error this package raises on purpose, and `Source`, the place an error points at.

* NwfilterHookError   one line for the person who ran `virsh start`; exit status 1
  * InputError        the XML is at fault; `.source` says where
    * XmlSyntaxError, DomainError, FilterSyntaxError, UnknownFilter, FilterLoop, UnboundVariable, BadValue,
      UnsupportedMatch
  * ConfigError       the configuration file is at fault
  * NftError          nft refused a transaction, hung or is missing
  * MissingFeature    the kernel lacks what a rule needs
  * UpdateError       a change of filters that a running guest or the library forbids; nothing has changed
  * StateError        the state directory or a record in it is unusable
    * Overtaken         what libvirt said is old news: ask again
  * LibvirtError      libvirt can't be asked
  * PacketError       what was said of a packet makes none
"""

from __future__ import annotations

from .dataclass import dataclass
from .text import one_line, shortened


@dataclass(frozen=True)
class Source:
    """
    Where an element was read: the file as it was named to us, and the 1-based line, 0 where there are none.

    NOWHERE is for what was not read from a text.

    Attributes:
        kept: the line that it has in the file that is written from it; None if that is the one that was read.
    """

    path: str
    line: int
    kept: int | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


NOWHERE = Source("", 0)


class NwfilterHookError(Exception):
    """Base of all; `str()` is one line without control characters, whatever the input held."""

    def __init__(self, message: str) -> None:
        super().__init__(shortened(one_line(message)))

    def lines(self) -> list[str]:
        """All there is to say, for a person who can read more than one line."""
        return [str(self)]


class InputError(NwfilterHookError):
    """
    `str()` reads "clean-traffic.xml:12: variable $MAC has no value".

    Attributes:
        more: the further faults of the same text, by line.
    """

    def __init__(self, message: str, source: Source) -> None:
        super().__init__(f"{source}: {message}" if source.path else message)
        self.source = source
        self.more: tuple[InputError, ...] = ()

    def lines(self) -> list[str]:
        return [str(self), *map(str, self.more)]


class XmlSyntaxError(InputError):
    """Not well-formed, not ours, too large, or with a document type."""


class DomainError(InputError):
    """The domain XML asks for something that can't be done."""


class Unfilterable(DomainError):
    """
    A port whose outgoing frames pass no hook of the kernel (Open vSwitch's userspace datapath): a quarantine stops only
    what comes to the guest.
    """


def quarantine_effect(reason: NwfilterHookError) -> str:
    """What a quarantine for this reason does."""
    if isinstance(reason, Unfilterable):
        return "nothing passes in, but what the guest sends does pass"
    return "nothing passes in or out"


class FilterSyntaxError(InputError):
    """A filter's XML is well-formed but not nwfilter."""


class UnknownFilter(InputError):
    """A filterref names a filter that no directory holds."""


class FilterLoop(InputError):
    """Filters that include each other."""


class UnboundVariable(InputError):
    """A variable that nobody gave a value, or a list that is too short or of another length."""


class BadValue(InputError):
    """A parameter's value that the attribute it ends up in can't hold."""


class UnsupportedMatch(InputError):
    """A rule that can't be enforced on this kind of tap."""


class ConfigError(NwfilterHookError):
    """A wrong key or value in the configuration file."""


class NftError(NwfilterHookError):
    """
    nft refused a transaction (nothing has changed then), hung, or is missing.

    Attributes:
        unsure: True if nft was given up, so that the kernel may or may not have taken the transaction.
    """

    def __init__(self, message: str, *, unsure: bool = False) -> None:
        super().__init__(message)
        self.unsure = unsure


class MissingFeature(NwfilterHookError):
    """The running kernel lacks a feature that a rule needs; names the config symbol."""


class UpdateError(NwfilterHookError):
    """A filter can't be defined or undefined, or a tap's rules can't be made from it; nothing has changed."""


class StateError(NwfilterHookError):
    """The state directory or a record in it can't be used."""


class Overtaken(StateError):
    """Somebody has done something about the guest since libvirt was asked about it; nothing has changed."""


class LibvirtError(NwfilterHookError):
    """
    libvirt can't be asked.

    Attributes:
        lost: the connection is of no use any more.
    """

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


class PacketError(NwfilterHookError):
    """
    Words, hexadecimal text or a capture that make no frame.

    Attributes:
        word: that is wrong; "" if it is none of them.
    """

    def __init__(self, message: str, word: str = "") -> None:
        super().__init__(message)
        self.word = word


class SystemErrorAs:
    """Within it, an OSError becomes an error of ours: `message`, and what the system says."""

    def __init__(self, kind: type[NwfilterHookError], message: str) -> None:
        self._kind, self._message = kind, message

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise self._kind(f"{self._message}: {error.strerror}") from error
