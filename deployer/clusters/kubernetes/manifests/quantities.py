"""Sizes of a profile, as Kubernetes writes them."""

from __future__ import annotations

_UNITS = {"b": "", "k": "Ki", "m": "Mi", "g": "Gi"}


def quantity(size: str) -> str:
    """A size such as ``50g`` as a quantity: ``50Gi``. The units of engines are powers of two."""
    return size[:-1] + _UNITS[size[-1]] if size[-1:] in _UNITS else size
