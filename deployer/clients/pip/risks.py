"""What makes an installer take packages from elsewhere too, whatever it was told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployer.clients.pip.reading import read_config

_UV = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX")


def overridden(env: Mapping[str, str], *, home: Path | None = None) -> tuple[str, ...]:
    """What under ``env`` makes pip or uv install from elsewhere too, one sentence each."""
    uv = [f"{name} is set: uv does not install from the index alone" for name in _UV if env.get(name)]
    return (*read_config(env, home=home).warnings, *uv)
