"""
`dataclass(frozen=True)` at a twentieth of its price.

The standard one imports inspect and compiles an __init__ for every class: 35 ms for our forty, which is a third of the
time a guest waits for its hook. This one keeps what we use: fields from annotations with plain defaults, comparison,
hash, repr, no assignment. Type checkers are shown the standard one, and so hold us to its rules.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import replace as replace
    from typing import Any, TypeVar

    _T = TypeVar("_T")
else:

    def dataclass(*, frozen):
        """Decorate a class: its annotated names become the fields, in order."""
        assert frozen
        return _frozen_class

    def replace(value, **changes):
        """A copy of `value` with other values for some fields."""
        return type(value)(**{**{name: getattr(value, name) for name in value.__fields__}, **changes})


def _frozen_class(cls: type) -> type:
    names = tuple(getattr(cls, "__annotations__", {}))
    defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}

    def init(self: object, *args: object, **kwargs: object) -> None:
        if len(args) == len(names) and not kwargs:  # nearly always, and a third of the time of what is below
            self.__dict__.update(zip(names, args))
            return
        if len(args) > len(names):
            raise TypeError(f"{cls.__name__} takes {len(names)} values, {len(args)} given")
        values = {**defaults, **dict(zip(names, args)), **kwargs}
        if len(values) != len(names) or any(name in kwargs for name in names[: len(args)]):
            wrong = sorted(set(names) ^ set(values)) or [name for name in names[: len(args)] if name in kwargs]
            raise TypeError(f"{cls.__name__}: missing, unknown or repeated: {', '.join(wrong)}")
        self.__dict__.update(values)

    def equal(self: object, other: object) -> object:
        return self.__dict__ == other.__dict__ if other.__class__ is cls else NotImplemented

    def frozen(self: object, name: str, *value: object) -> None:
        raise AttributeError(f"{cls.__name__}.{name} can't be changed")

    def represent(self: object) -> str:
        return f"{cls.__name__}({', '.join(f'{name}={self.__dict__[name]!r}' for name in names)})"

    members = {
        "__fields__": names,
        "__init__": init,
        "__eq__": equal,
        "__hash__": lambda self: hash(tuple(map(self.__dict__.__getitem__, names))),
        "__setattr__": frozen,
        "__delattr__": frozen,
        "__repr__": represent,
    }
    for name, member in members.items():
        if name not in cls.__dict__ or name in ("__eq__", "__hash__", "__init__"):
            setattr(cls, name, member)
    return cls


def as_dict(value: Any) -> Any:
    """`value` as JSON has it: a frozen class as its fields, a tuple as a list, a member of an enum as its value."""
    fields = getattr(type(value), "__fields__", None)
    if fields is not None:
        return {name: as_dict(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {name: as_dict(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_dict(each) for each in value]
    return value.value if isinstance(value, enum.Enum) else value


def from_dict(cls: type[_T], found: Any, **parsers: Callable[[Any], Any]) -> _T:
    """
    The value that `as_dict` made `found` of.

    Args:
        parsers: for every field, what makes its value; it raises ValueError or TypeError for what is none.

    Raises:
        TypeError, ValueError: something is missing, too much or wrong.
    """
    if not isinstance(found, dict) or set(found) != set(parsers):
        shown = sorted(found) if isinstance(found, dict) else found
        raise TypeError(f"{cls.__name__}: {shown!r} instead of its fields")
    return cls(**{name: parse(found[name]) for name, parse in parsers.items()})
