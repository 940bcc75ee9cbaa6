"""Passwords of a deployment's users that this host keeps, 0600, in the state directory."""

from __future__ import annotations

from pathlib import Path

from deployer.files import write_private
from deployer.host.state_dir import state_dir
from deployer.secrets import Secret


def _password_file(name: str, user: str) -> Path:
    return state_dir(name) / "secrets" / f"{user}.password"


def stored_password(name: str, user: str) -> Secret | None:
    """A password that was given by hand, or that deployer made for a user (0600, in the state directory)."""
    try:
        text = _password_file(name, user).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    return Secret(text) if text else None


def store_password(name: str, user: str, password: Secret) -> None:
    """Remember a password on this host, 0600."""
    write_private(_password_file(name, user), password.reveal() + "\n")


def forget_password(name: str, user: str) -> None:
    """Remove the password of a user who is gone."""
    _password_file(name, user).unlink(missing_ok=True)


def forget_passwords(name: str) -> None:
    """Remove every password of the deployment ``name`` from this host."""
    for path in (state_dir(name) / "secrets").glob("*.password"):
        path.unlink(missing_ok=True)
