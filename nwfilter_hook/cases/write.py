"""
How cases are written: as a test file, and for others' tools as JUnit's XML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from ..base.text import one_line
from .model import Outcome
from .pyyaml import pyyaml


def format_suite(head: Mapping[str, Any], cases: Iterable[Mapping[str, Any]]) -> str:
    """
    A test file.

    Raises:
        NwfilterHookError: PyYAML isn't there.
    """
    found: str = pyyaml().safe_dump({**head, "cases": list(cases)}, sort_keys=False, allow_unicode=False, width=1 << 16)
    return found


def junit(outcomes: Sequence[Outcome], errors: Sequence[str], seconds: float) -> bytes:
    """
    https://github.com/testmoapp/junitxml: what Jenkins, GitLab and their like read.

    Args:
        errors: why whole documents couldn't be tried; a case each, or their absence would look like success.
    """
    failures, skipped = sum(each.failed for each in outcomes), sum(each.untried is not None for each in outcomes)
    suite = ElementTree.Element(
        "testsuite",
        name="nwfilter-hook test",
        tests=str(len(outcomes) + len(errors)),
        failures=str(failures),
        errors=str(len(errors)),
        skipped=str(skipped),
        time=f"{seconds:.3f}",
    )
    for each in outcomes:
        name = one_line(each.case.name) or f"line {each.case.source.line}"
        case = ElementTree.SubElement(
            *(suite, "testcase"),
            classname=one_line(" ".join(each.suite.filters)),
            name=name,
            file=one_line(each.suite.path),
            line=str(each.case.source.line),
        )
        if each.untried is not None:
            ElementTree.SubElement(case, "skipped", message=one_line(each.untried))
        elif each.failed:
            ElementTree.SubElement(case, "failure", message=one_line(each.wrong))
    for error in errors:
        case = ElementTree.SubElement(suite, "testcase", classname="nwfilter-hook test", name="can't be tried")
        ElementTree.SubElement(case, "error", message=one_line(error))
    whole = ElementTree.Element("testsuites")
    whole.append(suite)
    made: bytes = ElementTree.tostring(whole, encoding="utf-8", xml_declaration=True)
    return made + b"\n"
