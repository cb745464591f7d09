"""Hooks of other packages don't print to standard output, which libvirt takes for the guest's new XML."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..findings import Finding, hint
from ..libvirt_files import hook_files, is_ours, read_script
from ..patient import Patient

_PRINTS = re.compile(r"^\s*(?:[^#'\"]*[;&|({]\s*)?(?:(?:echo|printf|cat|tee|puts|say)\b|print\(|sys\.stdout\.write)")
_ELSEWHERE = re.compile(r">|\|\s*logger|file\s*=|<<")
_ALL_ELSEWHERE = re.compile(r"^\s*exec\s+(1?>|>&|&>)")


def examine(patient: Patient) -> Iterator[Finding]:
    """A hint: a script that seems to, by its first such line; a program whose text can't be read tells nothing."""
    why = "when a guest is restored or migrated libvirt takes what a hook prints for its XML, and runs or refuses that"
    for path in hook_files():
        if not os.path.isfile(path) or not os.access(path, os.X_OK) or is_ours(path):
            continue
        data = read_script(path)
        if not data.startswith(b"#!"):
            continue
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            if _ALL_ELSEWHERE.search(line):
                break
            found = _PRINTS.match(line)
            if found and not _ELSEWHERE.search(line):
                yield hint(f"{path}:{number} seems to print to standard output: {line.strip()[:60]}", why, f"vi {path}")
                break
