"""Where the templates and the shipped profiles are: inside an installed package, else beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _directory(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def templates_dir() -> Path:
    return _directory("templates")


def profiles_dir() -> Path:
    return _directory("profiles")
