"""The manual's pages, which are made before setup.cfg counts what belongs to a wheel; all else is there."""

import glob
import os

from setuptools import setup

try:
    from docutils.core import publish_file
except ImportError:  # what is built without isolation may lack it; there are no pages then, as in `make install`
    publish_file = None

# as `make man` has it: man shall not break a command at a hyphen of its own
_WHOLE_WORDS = ".nr HY 0\n.hy 0\n.ad l\n"

os.makedirs("build/man", exist_ok=True)
for source in sorted(glob.glob("packaging/man/*.rst")) if publish_file else []:
    page = os.path.join("build/man", os.path.basename(source)[: -len(".rst")])
    publish_file(source_path=source, destination_path=page, writer_name="manpage")
    with open(page, encoding="utf-8") as made:
        lines = made.readlines()
    with open(page, "w", encoding="utf-8") as made:
        made.writelines(line + _WHOLE_WORDS if line.startswith(".TH ") else line for line in lines)

setup()
