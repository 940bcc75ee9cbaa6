"""``deployer backup verify``: prove that a backup can be restored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deployer.commands import Located
from deployer.commands.backup import Chosen
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Chosen, Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Prove that a backup can be restored.

    Every hash is compared. The backup is restored to a scratch server on a free port of 127.0.0.1; devpi's own check
    runs on it, root logs in, and pip installs a file. Nothing of it stays.
    """
    from deployer.operations import backup
    from deployer.operations.verify_backup import verify

    where = backup.place(options.profile, options.name, options.directory)
    done = verify(
        options.profile,
        options.name,
        where=where,
        wanted=options.backup,
        engine=options.engine,
        identity=Path(options.identity) if options.identity else None,
        ui=ui,
    )
    found = {"directory": str(where.directory), **done.backup.summary}
    return Result(data={**found, "installed": done.installed, "password": done.password})
