"""What a bundle carries besides files of indexes: deployer's wheels, and the profile for the other side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from deployer import DISTRIBUTION, __version__
from deployer.devpi.export import exported
from deployer.devpi.topology import Topology
from deployer.errors import EngineUnreachable, VerificationError
from deployer.host.runner import Runner
from deployer.image import DEFAULT_MAJOR
from deployer.protocol import OWN_PYTHON, parsed

PIP_TIMEOUT = 3600.0
"""Seconds in which pip downloads the wheels: a slow index takes long."""


def download_wheels(directory: Path, *, extras: Sequence[str], pythons: Sequence[str], runner: Runner) -> None:
    """Download deployer and all that it needs into ``directory``, with this host's pip.

    ``extras``: of deployer. ``pythons``: further versions of Python that the wheels are for, like ``3.12``.
    Raises VerificationError with pip's last lines.
    """
    own, wanted = _installed_from(), f"{DISTRIBUTION}[{','.join(extras)}]" if extras else DISTRIBUTION
    there = (f"--find-links={directory}",)
    if own is not None:
        _pip(runner, "wheel", "--no-deps", f"--wheel-dir={directory}", str(own))
    # Some dependencies have no wheel. pip builds them for this Python; those are pure, and serve any other, too.
    _pip(runner, "wheel", f"--wheel-dir={directory}", *there, f"{wanted}=={__version__}")
    for python in pythons:
        chosen = ("--only-binary=:all:", f"--dest={directory}", f"--python-version={python}")
        _pip(runner, "download", *chosen, *there, f"{wanted}=={__version__}")


def _pip(runner: Runner, *words: str) -> None:
    argv = (*OWN_PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", *words)
    try:
        done = runner.run(argv, timeout=PIP_TIMEOUT)
    except EngineUnreachable as error:
        raise VerificationError(f"pip did not end: {error.message}", hint="leave them out: --no-wheels") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise VerificationError(
            "pip can't download the wheels of deployer",
            hint="correct pip's index, or leave the wheels out: --no-wheels",
            details=tuple(lines[-5:]),
        )


def _installed_from() -> Path | None:
    """The directory or file that deployer was installed from; None for an index (PEP 610)."""
    told = distribution(DISTRIBUTION).read_text("direct_url.json")
    url = parsed(told).get("url", "") if told else ""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def profile_for_there(topology: Topology, applied: Mapping[str, Any], *, major: str) -> dict[str, Any]:
    """The profile of the server on the other side: users, indexes, image and server as here, offline. Pure.

    ``applied``: the profile of the last ``up``. What belongs to a host is left out: engine, network, data, options of
    plugins with their files, and the credentials of upstreams, which nobody asks there.
    """
    from deployer.profile.models import Profile

    usual = Profile().model_dump(mode="json")

    def changed(section: str) -> dict[str, Any]:
        told = (applied.get(section) or {}).items()
        return {key: value for key, value in told if value != usual[section].get(key)}

    declared = exported(topology, meant=applied)
    for index in declared["indexes"].values():
        if index:
            index.pop("credentials", None)
    server = {key: value for key, value in changed("server").items() if key not in ("options", "option_files")}
    server |= ({} if major == DEFAULT_MAJOR else {"version": major}) | {"offline": True}
    image = changed("image")
    return {"extends": "default", "server": server, **({"image": image} if image else {}), **declared}


def as_yaml(profile: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(profile), sort_keys=False, allow_unicode=True)
