"""``POST /+deployer/member/status``: what this member has, for whoever can read its directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyramid.response import Response

from deployer import __version__
from deployer.protocol import MemberRequest, MemberStatus
from deployer.server.challenge import INVALID, Challenge
from deployer.server.devpi.installed import server_version
from deployer.server.members.role import Role
from deployer.server.secret_files import read_text


class StatusView:
    """The view. ``front``: the file that says who answers clients."""

    def __init__(self, challenge: Challenge, status: Callable[[], MemberStatus], front: Path) -> None:
        self._challenge, self._status, self._front = challenge, status, front

    def __call__(self, request: Any) -> Any:
        try:
            wanted = MemberRequest.parse(request.json_body)
        except (ValueError, RecursionError):
            wanted = None
        if wanted is None or not self._challenge.admit(wanted.order, wanted.proof):
            return Response(json_body={"message": INVALID}, status=403)
        return Response(json_body=replace(self._status(), front=read_text(self._front) or "").json)


def of_primary(role: Role, uuid: str, serial: int) -> MemberStatus:
    """What a primary reports: it lacks nothing."""
    return MemberStatus(
        number=role.number,
        role=role.kind,
        uuid=uuid,
        serial=serial,
        primary_serial=serial,
        lag_seconds=0.0,
        synced=True,
        files_in_sync=True,
        files_missing=0,
        errors=(),
        version=__version__,
        server_version=server_version(),
        last_contact_seconds=None,
        primary_answers=True,
    )
