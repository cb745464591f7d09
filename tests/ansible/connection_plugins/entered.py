"""A connection of Ansible to a root directory beside this system: each command is run by the words of $ENTERED_BY."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: entered
short_description: a root directory
description: Commands are run in a root directory by a program that enters it.
options: {}
"""


class Connection(ConnectionBase):  # type: ignore[misc]
    """See the module."""

    transport = "entered"
    has_pipelining = True

    def _connect(self) -> Connection:
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Run a command of the shell there."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        words = json.loads(os.environ["ENTERED_BY"])
        done = subprocess.run([*words, "/bin/sh", "-c", cmd], input=in_data, capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file to there."""
        shutil.copy(in_path, os.environ["ENTERED_ROOT"] + out_path)

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file from there."""
        shutil.copy(os.environ["ENTERED_ROOT"] + in_path, out_path)

    def close(self) -> None:
        """Nothing is open."""
