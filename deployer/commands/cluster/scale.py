"""``deployer cluster scale``: another number of replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    replicas: Annotated[int, Argument(metavar="REPLICAS", min=0, max=99, help="How many members follow the primary.")]


def run(options: Options, ui: UI) -> Result:
    """Have so many replicas, and wait until all are in sync.

    The profile and the options of the last `up` hold besides. A member that is removed keeps its data.
    """
    from deployer.operations.cluster.change import scale

    done = scale(options.profile, options.name, options.replicas, lock_wait=options.wait, ui=ui)
    return Result(data={"replicas": options.replicas, "members": [one.data for one in done.members]})
