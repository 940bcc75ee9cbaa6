"""The systemd unit of a deployment: write, enable and remove it; units of others are not touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployer.errors import ConflictError, EngineError, EngineUnreachable
from deployer.files import replacing
from deployer.host.runner import Runner

MARK = "# Written by deployer for the deployment "


@dataclass(frozen=True, kw_only=True)
class Service:
    """The unit at ``path``; ``scope`` is ``system`` or ``user``."""

    path: Path
    scope: str
    runner: Runner
    enabled: bool = True
    now: bool = False
    """Whether it is enabled, and begins at once: a timer."""

    @classmethod
    def of(
        cls,
        name: str,
        *,
        scope: str,
        home: Path,
        env: Mapping[str, str],
        suffix: str = ".service",
        enabled: bool = True,
        now: bool = False,
    ) -> Service:
        """The unit of the deployment ``name``, where an administrator's units are (systemd.unit(5), UNIT FILE LOAD
        PATH)."""
        configuration = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
        directory = Path("/etc/systemd/system") if scope == "system" else configuration / "systemd/user"
        path = directory / f"deployer-{name}{suffix}"
        return cls(path=path, scope=scope, runner=Runner(), enabled=enabled, now=now)

    def install(self, text: str) -> bool:
        """Write and enable the unit; return whether anything changed. A unit that can't be enabled is rolled back.

        Raises ConflictError when a file of that name is not ours, EngineError when systemd refuses.
        """
        before = self._read()
        if before == text:
            return False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(text)
        except OSError as error:
            raise ConflictError(
                f"{self.path} can't be written: {error.strerror}",
                hint="print the unit: deployer install-service --print",
            ) from None
        try:
            self._systemctl("daemon-reload")
            if self.enabled:
                self._systemctl("enable", *self._now, self.path.name)
        except EngineError:
            if before is None:
                self.path.unlink()
            else:
                self._write(before)
            raise
        return True

    def remove(self) -> bool:
        """Disable and remove the unit; return whether there was one. What it started keeps running.

        Raises ConflictError when it is not ours, EngineError when systemd refuses.
        """
        if self._read() is None:
            return False
        if self.enabled:
            self._systemctl("disable", *self._now, self.path.name)
        self.path.unlink()
        self._systemctl("daemon-reload")
        return True

    @property
    def _now(self) -> tuple[str, ...]:
        return ("--now",) if self.now else ()

    def _write(self, text: str) -> None:
        with replacing(self.path) as stream:
            stream.write(text.encode())

    def _read(self) -> str | None:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConflictError(
                f"{self.path} can't be read: {error}", hint=f"check its permissions: ls -l {self.path}"
            ) from None
        if not text.startswith(MARK):
            raise ConflictError(f"{self.path} was not written by deployer", hint=f"rm {self.path}, if nothing needs it")
        return text

    def _systemctl(self, *words: str) -> None:
        user = ("--user",) if self.scope == "user" else ()
        try:
            done = self.runner.run(("systemctl", *user, *words))
            said = done.stderr.strip().splitlines()
            why = f": {said[0] if said else f'exit code {done.returncode}'}" if done.returncode else ""
        except EngineUnreachable as error:
            why = f": {error.message}"
        if why:
            raise EngineError(
                f"systemctl {' '.join((*user, *words))}{why}",
                hint="where systemd does not run: deployer install-service --print, for the init that does",
            )
