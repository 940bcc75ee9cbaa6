"""``deployer user create``: create a user with a generated or a given password."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Writing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Writing):
    user: Annotated[str, Argument(metavar="USER", help="Name of the new user.")]
    email: Annotated[str, Option("--email", help="Email address; devpi sends no mail.")] = ""
    title: Annotated[str, Option("--title", help="Full name.")] = ""
    password_stdin: Annotated[bool, Option("--password-stdin", help="Read the password instead of generating it.")] = (
        False
    )


def run(options: Options, ui: UI) -> Result:
    """Create a user; generate and store the password.

    Print it with `deployer secret show USER`.
    """
    from deployer.deployment.lock import hold
    from deployer.errors import ConflictError
    from deployer.secrets import generate
    from deployer.ui.prompts import read_password

    given = read_password(options.user) if options.password_stdin else None
    with hold(options.name, wait=options.wait), connect(options) as session:
        # Checked first: a new password must not replace the stored one of an existing user.
        if options.user in session.api.topology().users:
            raise ConflictError(f"the user {options.user} exists", hint=f"deployer user modify {options.user}")
        api = session.login()
        password = given or generate()
        fields = {key: value for key, value in (("email", options.email), ("title", options.title)) if value}
        with session.changing(options.user, password):
            api.put_user(options.user, fields, password=password)
    ui.step("user", f"{options.user} created (password: deployer secret show {options.user})")
    return Result(data={"user": options.user})
