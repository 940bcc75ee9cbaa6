"""``deployer backup fetch``: bring the backups of a remote repository to this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Common
from deployer.commands.backup import Placed
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Placed, Common):
    remote: Annotated[
        str, Option("--remote", metavar="REPOSITORY", help="Repository of restic; default: backup.remote.repository.")
    ] = ""
    remote_password: Annotated[
        str, Option("--remote-password", metavar="REFERENCE", help="env:NAME, file:PATH, command:WORDS or keyring:….")
    ] = ""
    remote_option: Annotated[
        list[str] | None, Option("--remote-option", metavar="KEY=VALUE", help="Option of restic; repeatable.")
    ] = None


def run(options: Options, ui: UI) -> Result:
    """Bring the backups of a remote repository to this machine.

    The directory must be absent or empty. It is there once all backups of the repository are here.
    """
    from deployer.operations import backup, backup_remote

    where = backup.place(options.profile, options.name, options.directory)
    remote = backup_remote.chosen(
        where.settings.remote, options.remote, options.remote_password, options.remote_option or ()
    )
    with ui.working("backup", f"fetching to {where.directory}"):
        backup_remote.fetch(remote, where.directory)
    found = backup.listed(where)
    ui.step("backup", f"{where.directory}: {len(found)} backups")
    return Result(data={"directory": str(where.directory), "backups": [one.summary for one in found]})
