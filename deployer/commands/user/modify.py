"""``deployer user modify``: change the fields of a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Writing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Writing):
    user: Annotated[str, Argument(metavar="USER", help="Name of the user.")]
    email: Annotated[str | None, Option("--email", help="Email address; devpi sends no mail.")] = None
    title: Annotated[str | None, Option("--title", help="Full name.")] = None
    description: Annotated[str | None, Option("--description", help="Free text.")] = None


def run(options: Options, ui: UI) -> Result:
    """Change the fields of a user; an empty value removes a field."""
    from deployer.deployment.lock import hold
    from deployer.errors import ServerRefused, UsageError

    given = {key: getattr(options, key) for key in ("email", "title", "description")}
    fields = {key: value for key, value in given.items() if value is not None}
    if not fields:
        raise UsageError("no field to change", hint="add --email, --title or --description")
    with hold(options.name, wait=options.wait), connect(options) as session:
        known = session.api.topology().users
        if options.user not in known:
            raise ServerRefused(f"there is no user {options.user}", hint="deployer user list")
        changed = {key: value for key, value in fields.items() if known[options.user].fields.get(key, "") != value}
        if changed:
            session.login().patch_user(options.user, changed)
    ui.step("user", f"{options.user}: {', '.join(changed) or 'unchanged'}")
    return Result(data={"user": options.user, "changed": sorted(changed)})
