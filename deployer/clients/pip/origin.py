"""The index and settings that this host's pip would use without deployer. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from deployer.addresses import split
from deployer.clients.pip.config import Entry, PipConfig, resolve


def upstream(config: PipConfig, *, ours: Callable[[str], bool]) -> Entry | None:
    """The index that this host's pip would install from without deployer; ``None``: pip's own default.

    An address that is ``ours``, or that deployer wrote, counts as the one it replaced. An address that is not http or
    https (a directory of files) can't be mirrored and is ignored.
    """
    found: list[Entry] = []
    for layer in config.layers:
        for entry in layer.entries:
            if not (ours(entry.value) or entry.value in layer.written):
                found.append(entry)
            else:
                found.extend(e for e in layer.former if (e.section, e.name) == (entry.section, entry.name))
    usable = [e for e in found if split(e.value) and not ours(e.value)]
    return resolve(usable, "index-url")


def build_settings(config: PipConfig, *, ours: Callable[[str], bool]) -> dict[str, Any]:
    """The settings with which pip inside an image build installs as this host's does; empty strings when unset.

    Keys: ``index_url``, ``cert`` (a path), ``proxy``, ``timeout`` (whole seconds, or ``None``).
    """
    index = upstream(config, ours=ours)
    return {
        "index_url": index.value if index else "",
        "cert": config.value("cert"),
        "proxy": config.value("proxy"),
        "timeout": _seconds(config.value("timeout")),
    }


def _seconds(text: str) -> int | None:
    """pip's time-out, which may be a fraction, as whole seconds."""
    try:
        return max(1, math.ceil(float(text)))
    except (ValueError, OverflowError):
        return None
