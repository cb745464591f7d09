"""Messages: one line each, with the place, and a guess at what was meant."""

from __future__ import annotations

import pytest

from nwfilter_hook.base import errors
from nwfilter_hook.base.errors import InputError, NftError, NwfilterHookError, Source
from nwfilter_hook.base.text import did_you_mean, one_line


def test_an_input_error_says_where() -> None:
    """The message of an input error begins with file and line."""
    error = InputError("variable $MAC has no value", Source("clean-traffic.xml", 12))
    assert str(error) == "clean-traffic.xml:12: variable $MAC has no value"
    assert error.source == Source("clean-traffic.xml", 12)


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x1b[31mb", "a\x00b", "a\u2028b", "a\x85b", "a\u202eb"])
def test_a_message_is_one_line(text: str) -> None:
    """Whatever the input held, a message is one printable line: nothing forges a second one or moves the cursor."""
    message = str(NwfilterHookError(text))
    assert message == one_line(text)
    assert message.isprintable()
    assert message.startswith("a\\")
    assert message.endswith("b")


def test_what_is_printable_stays_as_it_is() -> None:
    """Text of any language is left alone."""
    assert one_line("Gäste, 客人 and $IP") == "Gäste, 客人 and $IP"


@pytest.mark.parametrize(
    ("word", "hint"),
    [("srpipaddr", "; did you mean 'srcipaddr'?"), ("srcipadr", "; did you mean 'srcipaddr'?"), ("foo", ""), ("", "")],
)
def test_a_guess_at_what_was_meant(word: str, hint: str) -> None:
    """The nearest known word is suggested, and nothing if none is near."""
    assert did_you_mean(word, ["srcipaddr", "dstipaddr", "match"]) == hint


def test_all_errors_have_one_base() -> None:
    """Every error of the package is a NwfilterHookError; those about XML are InputErrors."""
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert len(classes) >= 14
    assert all(issubclass(each, NwfilterHookError) for each in classes)
    about_xml = {each.__name__ for each in classes if issubclass(each, InputError)} - {"InputError"}
    assert about_xml == {
        "XmlSyntaxError",
        "DomainError",
        "FilterSyntaxError",
        "Unfilterable",
        "UnknownFilter",
        "FilterLoop",
        "UnboundVariable",
        "BadValue",
        "UnsupportedMatch",
    }


def test_an_nft_error_knows_whether_the_kernel_may_have_taken_it() -> None:
    """Only an nft that was given up leaves it open what happened."""
    assert not NftError("refused").unsure
    assert NftError("hung", unsure=True).unsure
