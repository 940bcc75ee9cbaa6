"""``deployer cache prune``: remove what nobody uses from the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Located, index_name
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.protocol import Pruned

SPARED = {
    "warm": "listed by `warm` of the profile",
    "unlisted": "not listed by their upstream now",
    "rules": "pages that rules need",
}


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    older_than: Annotated[
        str, Option("--older-than", metavar="TIME", help="What nobody has used for so long, like 90d.")
    ] = ""
    to_size: Annotated[
        str, Option("--to-size", metavar="SIZE", help="The least recently used, until so much is left, like 20g.")
    ] = ""
    project: Annotated[str, Option("--project", metavar="NAME", help="Of this project only.")] = ""
    index: Annotated[str, Option("--index", metavar="USER/NAME", callback=index_name, help="Of this mirror only.")] = ""
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False


def run(options: Options, ui: UI) -> Result:
    """Remove what nobody uses from the cache.

    These are files of mirrors, pages of upstreams, and metadata. Uploads are never removed, nor the files that `warm`
    of the profile lists, nor files that their upstream does not list any more. What is removed is fetched again, and
    verified, when a client asks for it. With --to-size, the size is that of all cached files, pages and metadata.
    """
    from deployer.deployment.session import connect
    from deployer.engines.timestamps import moment
    from deployer.errors import UsageError
    from deployer.operations.cache import prune, size_of
    from deployer.protocol import PruneRequest

    if not (options.older_than or options.to_size or options.project):
        raise UsageError("what to remove is not named", hint="add --older-than 90d, --to-size 20g or --project NAME")
    wanted = PruneRequest(
        before=int(moment(options.older_than, "--older-than").timestamp()) if options.older_than else None,
        to_bytes=size_of(options.to_size, "--to-size") if options.to_size else None,
        index=options.index,
        project=options.project,
        dry=options.dry_run,
    )
    with (
        connect(options.name, engine=options.engine) as session,
        ui.working("prune", "removing" if not options.dry_run else "looking") as tell,
    ):
        done = prune(session, wanted, tell)
    freed = sum(of["bytes"] for of in done["removed"].values())
    return Result(
        data={
            "dry_run": options.dry_run,
            "removed": done["removed"],
            "projects": done["projects"],
            "freed_bytes": freed - done["linked_bytes"],
            "linked_bytes": done["linked_bytes"],
            "spared": done["spared"],
            "cache_bytes": done["cache_bytes"],
        },
        text=_text(done, freed - done["linked_bytes"], dry=options.dry_run),
    )


def _text(done: Pruned, freed: int, *, dry: bool) -> str:
    from deployer.diagnosis import size
    from deployer.ui.table import table

    largest = sorted(done["projects"].items(), key=lambda item: -item[1])
    parts = [table(("project", "size"), [(name, size(number)) for name, number in largest])] if dry and largest else []
    numbers = {kind: done["removed"].get(kind, {"number": 0})["number"] for kind in ("file", "page", "companion")}
    what = f"files {numbers['file']}, pages {numbers['page']}, metadata {numbers['companion']}"
    lines = [f"{'would remove' if dry else 'removed'} {size(freed)}: {what}", f"{size(done['cache_bytes'])} stay"]
    if done["linked_bytes"]:
        lines.append(f"{size(done['linked_bytes'])} more are in backups, and stay until those are pruned")
    lines += [f"spared: {number} {SPARED[why]}" for why, number in done["spared"].items() if why in SPARED]
    return "\n\n".join([*parts, "\n".join(lines)])
