"""``deployer backup create``: take a backup while the server serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Located
from deployer.commands.backup import Placed, lost_error
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Placed, Located):
    without_cache: Annotated[bool, Option("--without-cache", help="Leave out the files of mirrors.")] = False
    prune: Annotated[bool, Option("--prune", help="Then remove backups as backup.keep says.")] = False


def run(options: Options, ui: UI) -> Result:
    """Take a backup while the server serves.

    The directory gets plain files. A second backup adds only what is new. Users, passwords as hashes, indexes, uploads
    and cached files are in it; secrets only if backup.recipient names an age key.
    """
    from deployer.diagnosis import size
    from deployer.errors import VerificationError
    from deployer.operations import backup

    where = backup.place(options.profile, options.name, options.directory)
    cache = where.settings.cache and not options.without_cache
    made = backup.create(options.profile, options.name, where=where, engine=options.engine, cache=cache, ui=ui)
    ui.step(
        "backup",
        f"{made['name']}: {made['files']} files, {size(made['bytes'])}, {size(made['new_bytes'])} new, "
        f"in {made['seconds']:.1f} s",
    )
    if not made["secrets"]:
        ui.note("secrets were left out; backup.recipient: age1... keeps them, encrypted")
    mirrors = [one["path"] for one in made["lost"] if one["mirror"]]
    if mirrors:
        ui.warn(f"{len(mirrors)} files of mirrors are gone from the data; clients get them from the upstream")
    if options.prune:
        keep = where.settings.keep.model_dump()
        said = backup.prune(options.profile, options.name, where=where, engine=options.engine, keep=keep, ui=ui)
        ui.step("prune", f"{len(said['removed'])} removed, {size(said['freed_bytes'])} freed")
    uploads = [one["path"] for one in made["lost"] if not one["mirror"]]
    error = VerificationError(lost_error(made, uploads), hint="deployer check") if uploads else None
    made.pop("version", None)
    return Result(data={"directory": str(where.directory), **made}, error=error)
