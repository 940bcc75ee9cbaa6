"""Runs the steps of composite actions and GitLab templates as their runners do, as far as our files need it.

A step is a process of its own, with what the files behind ``GITHUB_ENV``, ``GITHUB_PATH`` and ``GITHUB_OUTPUT`` say.
The cache actions are imitated with a directory as their store.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")
_CONDITION = re.compile(r"(\S+) (==|!=) '([^']*)'")
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")


@dataclass(kw_only=True)
class Store:
    """What a CI host keeps between jobs: caches by key, the newest last."""

    directory: Path
    keys: list[str] = field(default_factory=list)

    def save(self, key: str, path: Path) -> None:
        """A key is written once, as on GitHub."""
        if key not in self.keys:
            shutil.copytree(path, self.directory / str(len(self.keys)), symlinks=True)
            self.keys.append(key)

    def restore(self, key: str, prefixes: str, path: Path) -> bool:
        """Put the cache of ``key``, else the newest with a prefix, at ``path``; whether it was that of ``key``."""
        wanted = [key] if key in self.keys else []
        wanted += [one for prefix in prefixes.split() for one in reversed(self.keys) if one.startswith(prefix)]
        if wanted:
            shutil.copytree(self.directory / str(self.keys.index(wanted[0])), path, symlinks=True)
        return wanted[:1] == [key]

    def size(self, prefix: str) -> int:
        """Bytes of the newest cache with a prefix."""
        number = max(number for number, key in enumerate(self.keys) if key.startswith(prefix))
        return sum(one.lstat().st_size for one in (self.directory / str(number)).rglob("*") if one.is_file())


@dataclass(kw_only=True)
class GitHubJob:
    """One job on a runner. ``temp``: the runner's directory for it, which is empty at the beginning."""

    temp: Path
    store: Store
    env: dict[str, str]
    path: list[str] = field(default_factory=list)
    log: str = ""
    shell: Sequence[str] = BASH
    _post: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.temp.mkdir(parents=True)
        self.env |= {
            "RUNNER_TEMP": str(self.temp),
            "RUNNER_OS": "Linux",
            "GITHUB_RUN_ID": "17",
            "RUNNER_TRACKING_ID": f"github_{secrets.token_hex(8)}",
        }

    def uses(self, action: Path, inputs: Mapping[str, str] | None = None) -> dict[str, str]:
        """Run the composite action in a directory; its outputs. Raises CalledProcessError for a step that fails."""
        told = yaml.safe_load((action / "action.yml").read_text(encoding="utf-8"))
        known = {f"inputs.{name}": str(one.get("default", "")) for name, one in told["inputs"].items()}
        assert not (inputs or {}).keys() - told["inputs"].keys()
        known |= {f"inputs.{name}": value for name, value in (inputs or {}).items()}
        known["github.action_path"] = str(action)
        for step in told["runs"]["steps"]:
            if self._is_due(step.get("if", ""), known):
                outputs = self._step(step, known)
                known |= {f"steps.{step.get('id')}.outputs.{name}": value for name, value in outputs.items()}
        return {name: self._filled(one["value"], known) for name, one in told["outputs"].items()}

    def run(self, script: str) -> str:
        """A step of the user's own; its output."""
        before = len(self.log)
        self._script(script, {})
        return self.log[before:]

    def end(self) -> None:
        """The post steps, the last one first, and the end of every process that has the mark of this job."""
        for post in reversed(self._post):
            post()
        self.kill()

    def kill(self) -> None:
        mark = f"RUNNER_TRACKING_ID={self.env['RUNNER_TRACKING_ID']}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except OSError:
                continue

    def _is_due(self, condition: str, known: Mapping[str, str]) -> bool:
        if not condition:
            return True
        found = _CONDITION.fullmatch(condition)
        assert found is not None, condition
        return (known.get(found[1], "") == found[3]) is (found[2] == "==")

    def _filled(self, text: str, known: Mapping[str, str]) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            return self.env.get(name.removeprefix("env."), "") if name.startswith("env.") else known.get(name, "")

        return _EXPRESSION.sub(value, text)

    def _step(self, step: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"], "a value would become a part of the script"
            return self._script(
                step["run"], {name: self._filled(str(value), known) for name, value in step.get("env", {}).items()}
            )
        with_ = {name: self._filled(value, known) for name, value in step["with"].items()}
        action, path = step["uses"].partition("@")[0], Path(with_["path"])
        if action == "actions/cache/save":
            self.store.save(with_["key"], path)
            return {}
        hit = self.store.restore(with_["key"], with_.get("restore-keys", ""), path)
        if action == "actions/cache" and not hit:
            self._post.append(lambda: self.store.save(with_["key"], path))
        return {"cache-hit": str(hit).lower()}

    def _script(self, script: str, env: Mapping[str, str]) -> dict[str, str]:
        files = {name: self.temp / f"_{name}" for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT")}
        for path in files.values():
            path.write_text("")
        (self.temp / "_script.sh").write_text(script)
        whole = {**self.env, **env, **{name: str(path) for name, path in files.items()}}
        whole["GITHUB_STEP_SUMMARY"] = str(self.temp / "_summary.md")
        whole["PATH"] = ":".join((*reversed(self.path), self.env["PATH"]))
        done = subprocess.run(
            [*self.shell, str(self.temp / "_script.sh")],
            env=whole,
            cwd=self.temp,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.log += done.stdout
        self.env |= variables(files["GITHUB_ENV"].read_text())
        self.path += files["GITHUB_PATH"].read_text().split()
        done.check_returncode()
        return variables(files["GITHUB_OUTPUT"].read_text())


def variables(text: str) -> dict[str, str]:
    """What a file of variables says: ``NAME=VALUE``, or ``NAME<<END``, lines, ``END``."""
    found: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        if re.match(r"\w+<<", line):
            name, end = line.split("<<", 1)
            value = []
            for one in lines:
                if one == end:
                    break
                value.append(one)
            found[name] = "\n".join(value)
        else:
            name, equals, rest = line.partition("=")
            assert equals, line
            found[name] = rest
    return found
