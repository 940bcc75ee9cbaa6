"""Wait until a server is up, is ours, accepts our login and serves its index; fail as soon as that is impossible.

The first requests use bare sockets: importing httpx takes 0.2 s and happens in the background meanwhile. The engine is
asked in the background, too, whether the server still runs.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING

from deployer.errors import ConflictError
from deployer.host.background import meanwhile
from deployer.readiness.run import Run
from deployer.readiness.watch import Watch
from deployer.secrets import Secret, mask

if TYPE_CHECKING:
    from deployer.devpi.api import DevpiApi
    from deployer.devpi.identity import Identity
    from deployer.engines.base import Engine

ROOT = "root"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """``timings``: seconds from the start of the wait to each stage that was passed. ``ours``: whether the server has
    proved that it is, and may get a password. The caller closes ``api``."""

    timings: dict[str, float]
    api: DevpiApi
    identity: Identity
    ours: bool = False


def wait(
    *,
    url: str,
    engine: Engine,
    name: str,
    expected_uuid: Callable[[], str | None],
    proof_key: Callable[[], str | None],
    credentials: Callable[[], Secret] | None,
    index: str | None,
    deadline: timedelta,
    on_stage: Callable[[str, float], None],
    mask: Callable[[str], str] = mask,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Ready:
    """Wait for the server ``name`` of ``engine`` at ``url``; ``on_stage`` is called with each stage that is passed.

    ``expected_uuid`` and ``proof_key`` (hex) are called once the server answers, because a first boot writes them; None
    means unknown. Without ``credentials`` there is no login; without ``index`` no index is requested (a first boot has
    none yet). ``url`` is requested as given, without proxies; ``clock`` is monotonic.

    Raises NotReadyError with the last log lines when the server dies or the deadline passes; ConflictError,
    VerificationError or Refused with the server's own message when it refuses to run; ConflictError when another server
    answers (it is sent no password); ServerRefused when root's password or the index is refused.
    """
    httpx = meanwhile(lambda: import_module("deployer.devpi.api"))
    watch = Watch(engine, name, mask=mask, clock=clock)
    run = Run(url, deadline, watch=watch, on_stage=on_stage, clock=clock, sleep=sleep)
    run.until_it_speaks()
    httpx.result()
    return _introduce(run, url, expected_uuid=expected_uuid, proof_key=proof_key, credentials=credentials, index=index)


def _introduce(
    run: Run,
    url: str,
    *,
    expected_uuid: Callable[[], str | None],
    proof_key: Callable[[], str | None],
    credentials: Callable[[], Secret] | None,
    index: str | None,
) -> Ready:
    from deployer.devpi.api import DevpiApi

    api = DevpiApi(url)
    try:
        nonce = secrets.token_hex(16)
        identity = run.insist(api, lambda: api.identity(nonce))
        known = check_ours(url, identity, nonce=nonce, uuid=expected_uuid(), key=proof_key())
        run.passed("ours")
        if credentials is not None:
            if not known:
                raise ConflictError(
                    f"the identity of the server at {url} can't be verified, so no password is sent",
                    hint="run as a user who may read the data directory",
                )
            password = credentials()
            run.insist(api, lambda: api.login(ROOT, password))
            run.passed("login")
        if index is not None:
            run.insist(api, lambda: api.simple_status(index))
            run.passed("index")
    except BaseException:
        api.close()
        raise
    return Ready(timings=run.timings, api=api, identity=identity, ours=known)


def check_ours(url: str, identity: Identity, *, nonce: str, uuid: str | None, key: str | None) -> bool:
    """Whether the server is verified as ours. Raises ConflictError when it is another one."""
    from deployer.devpi.identity import verify

    cure = "stop the other server, or choose another port with --port"
    if uuid is not None and identity.uuid != uuid:
        raise ConflictError(
            f"another devpi answers at {url}: its uuid is {identity.uuid}, the data directory has {uuid}",
            hint=cure,
        )
    if key is not None and not verify(identity, nonce=nonce, proof_key=key):
        raise ConflictError(
            f"the server at {url} can't prove that it runs on this deployment's data directory", hint=cure
        )
    return uuid is not None or key is not None
