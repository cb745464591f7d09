"""
The last good configuration, for guests that run already when somebody has broken the file.

    STATE_DIR/configuration     the text of the configuration file when a guest last got rules

In:  the configuration file, which can't be used.
Out: a `Config` to go by, and what to say about it; or nothing.
"""

from __future__ import annotations

import os
import stat

from ..base.errors import ConfigError
from ..base.text import nearest
from ..config import CONFIG_VARIABLE, MAX_BYTES, Config, config_file, parse_config, read_text
from ..trust import distrust

NAME = "configuration"


def fall_back() -> tuple[Config, str] | None:
    """
    What to go by if `read_config` failed: the last good configuration, else the good lines of the file beside defaults.

    A file that others may write only tells where to look for the last good one, which is ours or not used. A file that
    NWFILTER_HOOK_CONF names is somebody's trial: unless it says where its state is nothing is done, since the host's
    own is none of its business.

    Returns:
        The configuration, and a sentence that tells which it is; None if there is nothing to go by.
    """
    path, is_trial = config_file(), CONFIG_VARIABLE in os.environ
    try:
        text = read_text(path)
    except (FileNotFoundError, ConfigError):
        text = ""
    found = parse_config(text, path, tolerant=True)
    default = Config().state_dir
    places = [found.state_dir, *_probable_state_dirs(text), default]
    for directory in dict.fromkeys(place for place in places if not (is_trial and place == default)):
        kept = _kept(directory)
        if kept:
            return kept, f"going by the last good one, {directory}/{NAME}"
    usable = bool(text) and not distrust(path)
    if is_trial and (not usable or found.state_dir == default):
        return None
    if usable:
        found.text = None
        return found, "going by the lines of it that are right, and the defaults"
    return Config(), "going by the defaults"


def _probable_state_dirs(text: str) -> list[str]:
    """What a misspelt line may have meant."""
    pairs = [line.partition("=") for line in text.splitlines()]
    named = [value.strip() for key, _, value in pairs if nearest(key.strip(), ["state_dir"])]
    return [value for value in named if value.startswith("/") and "\0" not in value]


def _kept(directory: str) -> Config | None:
    """The last good configuration, if it is of this state directory and nobody else's work."""
    path = os.path.join(directory, NAME)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or distrust(path):
                return None
            config = parse_config(file.read(MAX_BYTES).decode(), path)
    except (OSError, UnicodeDecodeError, ConfigError):
        return None  # of an older version of ours, perhaps
    return config if config.state_dir == directory else None
