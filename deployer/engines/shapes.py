"""The shape of an engine's answer: what is missing is empty, and what has another shape is an error of the engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from deployer.errors import EngineError

P = ParamSpec("P")
R = TypeVar("R")


def shaped(parse: Callable[P, R]) -> Callable[P, R]:
    """Let ``parse`` read parsed JSON of an engine without a check of each step. Raises EngineError."""

    @wraps(parse)
    def parsing(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return parse(*args, **kwargs)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise EngineError(
                f"the engine's answer has an unknown shape: {error}",
                hint="check that docker, podman or nerdctl on PATH is the engine's own client",
            ) from None

    return parsing


def texts(value: Any) -> dict[str, str]:
    """Return an object of strings, such as labels. Raises TypeError."""
    found = dict(value or {})
    if not all(isinstance(key, str) and isinstance(text, str) for key, text in found.items()):
        raise TypeError("not an object of strings")
    return found


def words(value: Any) -> tuple[str, ...]:
    """Return a list of strings as a tuple. Raises TypeError."""
    found = tuple(value or ())
    if isinstance(value, str) or not all(isinstance(word, str) for word in found):
        raise TypeError("not a list of strings")
    return found
