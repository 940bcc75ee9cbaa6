"""``deployer index create``: a stage or a mirror, by the keys of a profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Writing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Writing):
    index: Annotated[str, Argument(metavar="USER/NAME", help="The new index.")]
    settings: Annotated[
        list[str] | None, Argument(metavar="[KEY=VALUE]...", help="As in a profile: bases=root/pypi volatile=false.")
    ] = None
    kind: Annotated[str, Option("--type", metavar="TYPE", help="stage, mirror, or another type of the server.")] = (
        "stage"
    )


def run(options: Options, ui: UI) -> Result:
    """Create an index from KEY=VALUE words, as in a profile.

    The keys are those of `indexes:` in a profile; a list is written with commas.
    """
    return create(options, ui, index=options.index, settings=options.settings or (), kind=options.kind)


def create(options: Writing, ui: UI, *, index: str, settings: Sequence[str], kind: str) -> Result:
    """Create ``index`` of the type ``kind``."""
    from deployer.deployment.lock import hold
    from deployer.devpi.admission import admit
    from deployer.devpi.declared import new_index, parse_settings
    from deployer.devpi.names import index_name
    from deployer.errors import ConflictError, ServerRefused, UsageError

    index_name(index)
    if kind == "ordered":
        raise UsageError(
            "an ordered index knows who owns which names, which only a profile can say",
            hint="declare it in the profile, then: deployer index apply",
        )
    node = new_index(index, parse_settings(settings, kind=kind))
    fields = {**node.initial, **node.fields}
    if kind == "mirror" and not fields.get("mirror_url"):
        raise ServerRefused("a mirror needs to know of what", hint="url=https://packages.example.com/simple/")
    with hold(options.name, wait=options.wait), connect(options) as session:
        topology = session.api.topology()
        if index in topology.indexes:
            raise ConflictError(f"the index {index} exists", hint=f"deployer index modify {index}")
        owner = index.partition("/")[0]
        if owner not in topology.users:
            raise ServerRefused(f"there is no user {owner}", hint=f"deployer user create {owner}")
        admit(index, fields, topology)
        session.login().put_index(index, session.api.dialect.fit(index, fields))
    ui.step("index", f"{index} created ({kind})")
    return Result(data={"index": index, "type": kind})
