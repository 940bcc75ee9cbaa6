"""ID tokens of CI jobs: got from the CI, and exchanged at a server of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployer.errors import DeployerError, NotReadyError, ServerRefused, UsageError
from deployer.protocol import OIDC_ROUTE
from deployer.secrets import Secret

_REQUEST_URL, _REQUEST_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """A token of the server. ``expires``: seconds since 1970."""

    token: Secret
    user: str
    expires: int
    indexes: tuple[str, ...]
    allowed: tuple[str, ...]


def of_github(env: Mapping[str, str], audience: str) -> Secret:
    """The ID token of this job of GitHub Actions. Raises UsageError, ServerRefused."""
    import httpx

    if not (env.get(_REQUEST_URL) and env.get(_REQUEST_TOKEN)):
        raise UsageError(
            f"no ID token: --id-token is not given, and {_REQUEST_URL} is not set",
            hint="add permissions: {id-token: write} to the job on GitHub, or --id-token env:NAME elsewhere",
        )
    headers = {"Authorization": f"Bearer {env[_REQUEST_TOKEN]}", "Accept": "application/json"}
    try:
        url = httpx.URL(env[_REQUEST_URL]).copy_merge_params({"audience": audience})
        answer = httpx.get(url, headers=headers, timeout=30.0)
        value = answer.json().get("value") if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
        raise ServerRefused(f"the runner gave no ID token: {type(error).__name__}", hint="run the job again") from None
    if not isinstance(value, str) or not value:
        raise ServerRefused(f"the runner gave no ID token: HTTP {answer.status_code}", hint="run the job again")
    return Secret(value)


def exchange(url: str, token: Secret) -> Exchanged:
    """Exchange an ID token at the server ``url``. Raises ServerRefused with the server's reason, NotReadyError."""
    from deployer.devpi.answers import line, text
    from deployer.devpi.connection import Connection

    server = Connection(url, timeout=60.0)
    try:
        reply = server.request("POST", OIDC_ROUTE, body={"token": token.reveal()})
        found = reply.json() or {}
        if reply.status != 200:
            raise _refusal(url, reply.status, line(text(found.get("message"))))
        made, expires = text(found.get("token")), found.get("expires")
        if not made or not isinstance(expires, int):
            server.not_devpi("no token in the answer")
        return Exchanged(
            token=Secret(made),
            user=text(found.get("user")),
            expires=expires,
            indexes=_texts(found.get("indexes")),
            allowed=_texts(found.get("allowed")),
        )
    finally:
        server.close()


def _refusal(url: str, status: int, message: str) -> DeployerError:
    if status == 503:
        return NotReadyError(f"{url}: {message or 'busy'}", hint="run the job again")
    if status not in (401, 403) or not message:
        return ServerRefused(
            f"{url} exchanges no ID tokens (HTTP {status})",
            hint="set server.oidc in its profile, then there: deployer up",
        )
    return ServerRefused(
        f"{url} refused the ID token: {message} (HTTP {status})",
        hint="compare server.oidc of its profile with the claims of this job; the reason is in its log: deployer logs",
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
