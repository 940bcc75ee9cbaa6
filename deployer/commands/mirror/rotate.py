"""``deployer mirror rotate``: reload upstream credentials without a restart; the cache stays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment
    from deployer.profile.models import Profile


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    index: Annotated[str, Argument(metavar="INDEX", help="Name of the mirror; default: all with credentials.")] = ""


def run(options: Options, ui: UI) -> Result:
    """Reload the upstream credentials of the running server.

    It reads the credentials from the sources in the profile. The server is not restarted and keeps its cache. Run this
    from a timer for short-lived secrets (`command:`).
    """
    from pathlib import Path

    from deployer.deployment.credentials import hand_over
    from deployer.deployment.find import require
    from deployer.deployment.lock import hold
    from deployer.deployment.secret_refs import authorizations
    from deployer.errors import ConflictError, UsageError
    from deployer.operations.status import ask

    with hold(options.name, wait=options.wait):
        deployment = require(options.name, engine=options.engine)
        profile = _profile(options, deployment)
        wanted = {name: index for name, index in profile.indexes.items() if index.credentials is not None}
        if options.index and options.index not in wanted:
            raise UsageError(
                f"{options.index} has no credentials in the profile",
                hint=f"name one of: {', '.join(wanted)}"
                if wanted
                else f"add indexes.{options.index}.credentials to the profile",
            )
        if deployment.server_dir is None:
            raise ConflictError(f"{options.name} has no data directory", hint="deployer up")
        chosen = {options.index: wanted[options.index]} if options.index else wanted
        fresh = authorizations(chosen, env=os.environ, home=Path.home())
        changed = hand_over(deployment.server_dir, fresh, keep=bool(options.index))
        ask(deployment.url)  # the server reads the file at the next request
    ui.step(
        "mirrors", f"{', '.join(chosen) or 'none has credentials'}: {'new credentials' if changed else 'unchanged'}"
    )
    return Result(data={"mirrors": sorted(chosen), "changed": changed})


def _profile(options: Options, deployment: Deployment) -> Profile:
    """Return the last applied profile with its secret references, or the profile that ``--profile`` names."""
    from deployer.profile.load import load
    from deployer.profile.models import Profile

    applied = deployment.applied
    if applied is None or not applied.profile or options.profile != "default":
        return load(options.profile).profile
    return Profile.model_validate(applied.profile)
