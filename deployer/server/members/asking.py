"""Ask the member that runs on a directory, from the same host. Standard library only."""

from __future__ import annotations

import json
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from deployer.protocol import (
    IDENTITY_ROUTE,
    MEMBER_STATUS_ROUTE,
    ExitCode,
    MemberRequest,
    MemberStatus,
    Refusal,
    client_proof,
    parsed,
)
from deployer.server.secret_files import Private, read_text

SECONDS = 10.0
"""Seconds that a member has for an answer."""
_TRIES = 5
"""Another order may use up the challenge first."""
_THIS_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a target, not bound


def ask(serverdir: Path) -> MemberStatus:
    """What the member on ``serverdir`` reports. Raises Refusal."""
    private = Private.of(serverdir)
    try:
        running, key = read_text(private.running), read_text(private.proof_key)
    except OSError as error:
        raise Refusal(
            f"can't read {error.filename}: {error.strerror}",
            hint="run this as the owner of the server directory",
            code=ExitCode.REFUSED,
        ) from None
    if running is None or key is None:
        raise _silent(serverdir, "none was started there")
    host, _, port = running.rpartition(" ")
    connection = HTTPConnection(_THIS_HOST.get(host, host), int(port), timeout=SECONDS)
    try:
        for _ in range(_TRIES):
            about = _answer(connection, "GET", IDENTITY_ROUTE)[1]
            wanted = MemberRequest()
            proof = client_proof(key, challenge=about["challenge"], uuid=about["uuid"], order=wanted.order)
            status, found = _answer(connection, "POST", MEMBER_STATUS_ROUTE, replace(wanted, proof=proof).json)
            if status != 403:
                break
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise _silent(serverdir, str(error) or type(error).__name__) from None
    finally:
        connection.close()
    if status == 404:
        raise Refusal(
            f"the server on {serverdir} is no member of a cluster",
            hint="start it with --member and --primary",
            code=ExitCode.CONFLICT,
        )
    try:
        return MemberStatus.parse(found)
    except ValueError as error:
        raise _silent(serverdir, f"status {status}: {error}") from None


def _answer(connection: HTTPConnection, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of an answer; an empty object where it has none. Raises OSError, HTTPException, ValueError."""
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    return answer.status, parsed(content) if "json" in answer.headers.get_content_type() else {}


def _silent(serverdir: Path, why: str) -> Refusal:
    return Refusal(
        f"the server on {serverdir} does not answer: {why}", hint="start it, or wait", code=ExitCode.NOT_READY
    )
