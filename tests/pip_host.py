"""A host as pip sees it: its files, its variables, a venv; and pip itself, to be asked what it makes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deployer.clients import pip
from deployer.clients.client import Account, ClientSettings
from deployer.clients.configure import ClientChange, configure
from deployer.clients.pip.places import user_file
from tests.forked import forked

URL = "http://127.0.0.1:3141/root/dev/+simple/"
CORP = "https://pip.corp.example.com/simple"
SETTINGS = ClientSettings(index_url=URL, timeout=60)

# What the installing command's own parser makes of files and variables: exactly what pip would use.
ASK = """
import sys
from pip._internal.commands import create_command
from pip._internal.configuration import Configuration
values = create_command("install").parser.get_default_values()
config = Configuration(isolated=False)
config.load()
sys.stdout.write(repr((dict(config.items()), values.index_url, values.timeout, values.extra_index_urls, values.cert)))
"""


class Host:
    """A home, a venv without any program in it, system-wide files, and the environment that leads to them."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.venv = root / "venv"
        self.xdg = root / "xdg"
        self.state = root / "state"
        for folder in (self.home, self.venv / "bin", self.xdg):
            folder.mkdir(parents=True)
        self.env = {"HOME": str(self.home), "PATH": os.defpath, "XDG_CONFIG_DIRS": str(self.xdg)}

    @property
    def account(self) -> Account:
        return Account(env=self.env, home=self.home, state=self.state)

    def write(self, place: str, text: str) -> Path:
        path = {
            "global": self.xdg / "pip" / "pip.conf",
            "legacy": self.home / ".pip" / "pip.conf",
            "user": user_file(self.account),
            "venv": self.venv / "pip.conf",
            "chosen": self.home / "chosen.conf",
        }[place]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def activate(self) -> None:
        """Make the venv one that python takes for one: its home is the python that runs this."""
        shutil.rmtree(self.venv)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.venv)], check=True)
        self.env |= {"VIRTUAL_ENV": str(self.venv), "PATH": f"{self.venv}/bin:{os.defpath}"}

    def read(self) -> pip.PipConfig:
        prefix = self.venv if "VIRTUAL_ENV" in self.env else Path(sys.prefix)
        return pip.read_config(self.account, prefix=prefix)

    def ask(self) -> subprocess.CompletedProcess[str]:
        import pip as real

        if "VIRTUAL_ENV" not in self.env:
            import pip._internal.commands.install
            import pip._internal.configuration

            return forked(lambda: exec(ASK), env=self.env)  # noqa: S102 - our own text
        python = self.venv / "bin" / "python"
        return subprocess.run(
            [python, "-c", f"import sys; sys.path.append({str(Path(real.__file__).parents[1])!r})\n{ASK}"],
            env=self.env,
            capture_output=True,
            text=True,
        )

    def configure(self, settings: ClientSettings = SETTINGS, *, scope: str = "user") -> ClientChange:
        return configure(pip.Pip(), settings, scope=scope, account=self.account)
