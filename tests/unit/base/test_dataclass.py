"""The package's own frozen dataclass does what the standard one does, as far as it is used."""

from __future__ import annotations

import pytest

from nwfilter_hook.base.dataclass import dataclass, replace
from nwfilter_hook.base.errors import Source


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


def test_fields_by_position_and_by_name() -> None:
    """Fields are given in order or by name; those with a default may be left out."""
    assert Point(1, 2) == Point(y=2, x=1)
    assert (Point(1).x, Point(1).y) == (1, 0)
    assert repr(Point(1)) == "Point(x=1, y=0)"


@pytest.mark.parametrize("arguments", [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})])
def test_wrong_fields(arguments: tuple[tuple[int, ...], dict[str, int]]) -> None:
    """A missing, unknown or repeated field is an error."""
    with pytest.raises(TypeError):
        Point(*arguments[0], **arguments[1])


def test_equal_fields_make_equal_values() -> None:
    """Values compare and hash by their fields, and only within a class."""
    assert hash(Point(1, 2)) == hash(Point(1, 2))
    assert Point(1, 2) != Point(2, 1)
    assert Point(1, 2) != Source("a", 2)  # type: ignore[comparison-overlap]
    assert len({Point(1), Point(1), Point(2)}) == 2


def test_a_value_does_not_change() -> None:
    """No field can be set or deleted; a copy with another value can be made."""
    point = Point(1)
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del point.x
    assert replace(point, y=5) == Point(1, 5)
    assert point == Point(1)


def test_a_class_may_have_its_own_text() -> None:
    """A __str__ of the class stays."""
    assert str(Source("a.xml", 3)) == "a.xml:3"
