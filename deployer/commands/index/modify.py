"""``deployer index modify``: some fields of an index and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Writing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Writing):
    index: Annotated[str, Argument(metavar="USER/NAME", help="Which index.")]
    settings: Annotated[list[str], Argument(metavar="KEY=VALUE...", help="As in a profile: volatile=true.")]


def run(options: Options, ui: UI) -> Result:
    """Change the named fields of an index and no others."""
    return modify(options, ui, index=options.index, settings=options.settings)


def modify(options: Writing, ui: UI, *, index: str, settings: Sequence[str], kind: str = "") -> Result:
    """Change ``index``, which is of the type ``kind`` when that is given."""
    from deployer.deployment.lock import hold
    from deployer.devpi.admission import admit, require_index
    from deployer.devpi.declared import changed_fields, parse_settings

    with hold(options.name, wait=options.wait), connect(options) as session:
        topology = session.api.topology()
        node = require_index(index, topology, kind=kind)
        wanted = parse_settings(settings, kind=str(node.fields.get("type", "")))
        fields = session.api.dialect.fit(index, changed_fields(wanted, node))
        if fields:
            admit(index, fields, topology)
            session.login().patch_index(index, fields)
    ui.step("index", f"{index}: {', '.join(fields) or 'unchanged'}")
    return Result(data={"index": index, "changed": sorted(fields)})
