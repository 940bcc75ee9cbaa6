"""A throw-away index: up for as long as a block of code runs, and gone after it in any case."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from deployer.protocol import OWN_PYTHON, parsed
from deployer.testing import keeper
from deployer.testing.keeper import state

_KEPT = frozenset({"DEPLOYER_BASE_IMAGE", "DEPLOYER_CONFIG_DIR"})
"""Variables that say what is on this host, not which deployment is meant."""
INDEX = "root/dev"
"""The index that clients get, unless a profile says otherwise."""


class IndexFailed(RuntimeError):
    """A command of deployer failed. The message has its cause and its cure; ``code`` is the kind, as in its JSON."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class RunningIndex:
    """An index that answers. ``url``: the server's address; ``index_url``: what pip and uv are given."""

    name: str
    url: str
    index_url: str
    _env: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make pip and uv use this index and no other, whatever this user's files say."""
        return {
            "PIP_INDEX_URL": self.index_url,
            "PIP_CONFIG_FILE": os.devnull,
            "UV_DEFAULT_INDEX": self.index_url,
            "UV_NO_CONFIG": "1",
        }

    def upload(self, *paths: Path | str, index: str = INDEX) -> list[str]:
        """Upload wheels and sdists, or directories of them. Returns the names of the files that are new.

        Raises IndexFailed when the server refuses one.
        """
        data = self.run("package", "upload", "--index", index, *(str(path) for path in paths))
        return [str(name) for name in data["uploaded"]]

    def upload_environment(self, index: str = INDEX) -> dict[str, str]:
        """Variables with which twine and ``uv publish`` upload to ``index``: its address, and a token for it alone."""
        made = self.run("token", "create", "root", "--index", index)
        address, token = str(made["upload_url"]), str(made["token"])
        return {
            "TWINE_REPOSITORY_URL": address,
            "TWINE_USERNAME": "__token__",
            "TWINE_PASSWORD": token,
            "UV_PUBLISH_URL": address,
            "UV_PUBLISH_TOKEN": token,
        }

    def run(self, *words: str) -> dict[str, Any]:
        """Run a command of deployer on this deployment and return the data of its JSON, for example ``run("stats")``.

        Raises IndexFailed when it fails.
        """
        done = subprocess.run(
            [*keeper.DEPLOYER, *words, "--json"], env=dict(self._env), capture_output=True, text=True, check=False
        )
        return _data(done.stdout, done.stderr)


@contextmanager
def running_index(
    *, upstream: str = "", engine: str = "process", profile: Mapping[str, Any] | None = None
) -> Iterator[RunningIndex]:
    """Start an index on a free port of loopback with its own temporary data, and remove both at the end.

    By default it has one stage, ``root/dev``, where files can be replaced, and asks nobody; with ``upstream``, the
    address of a simple index, the stage shows that index's projects as well. ``engine``: ``process`` (needs the extra
    ``server``), ``docker``, ``podman`` or ``nerdctl``. ``profile``: the keys of a profile, over those of ``ci``. The
    index ends with this process, even if that is killed.

    Raises IndexFailed when it can't be started.
    """
    name = f"testing-{uuid.uuid4().hex[:12]}"
    env = {key: value for key, value in os.environ.items() if not key.startswith("DEPLOYER_") or key in _KEPT}
    env |= {"DEPLOYER_NAME": name, "DEPLOYER_ENGINE": engine}
    with _keeper(env) as process:
        stdin, stdout, stderr = (cast(IO[bytes], pipe) for pipe in (process.stdin, process.stdout, process.stderr))
        try:
            stdin.write(json.dumps(_profile(upstream, profile or {})).encode() + b"\n")
            stdin.flush()
            kept = parsed(stdout.readline() or "{}")
            data = _data(kept.get("up", ""), "" if kept.get("up") else stderr.read().decode(errors="replace"))
            env |= state(kept["directory"])
            yield RunningIndex(name=name, url=data["url"], index_url=data["simple_url"], _env=env)
        finally:
            stdin.close()


def _keeper(env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C ends the tests, and their end ends the index."""
    return subprocess.Popen(
        [*OWN_PYTHON, "-m", "deployer.testing.keeper"],
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _profile(upstream: str, given: Mapping[str, Any]) -> dict[str, Any]:
    mirror = {"type": "mirror", "url": upstream} if upstream else None
    stage = {"type": "stage", "volatile": True, "bases": ["root/pypi"] if upstream else []}
    return {
        "extends": "ci",
        "server": {"lifetime": "unlimited"},
        "indexes": {"root/pypi": mirror, INDEX: stage},
        **given,
    }


def _data(output: str, messages: str) -> dict[str, Any]:
    """The data of an envelope. Raises IndexFailed for that of a failure, and for none."""
    try:
        envelope = parsed(output)
    except ValueError:
        raise IndexFailed(messages.strip() or "deployer printed nothing") from None
    if error := envelope["error"]:
        raise IndexFailed("\n".join(filter(None, (error["message"], error["hint"]))), error["code"])
    return dict(envelope["data"])
