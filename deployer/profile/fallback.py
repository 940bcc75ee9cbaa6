"""Which index may stand in for one of ours. Pure, and cheap to import."""

from __future__ import annotations

from collections.abc import Mapping

from deployer.addresses import split


class NoFallback(ValueError):
    """Clients of an index must not go elsewhere. ``hint``: what to change."""

    def __init__(self, why: str, *, hint: str) -> None:
        super().__init__(why)
        self.hint = hint


def fallback(indexes: Mapping[str, object], index: str) -> str:
    """The upstream that serves exactly the names and files of ``index``. ``indexes``: of a profile.

    Only a public mirror has one. Whatever takes uploads, or has private bases, serves names that mean something else
    elsewhere: whoever registers such a name at a public index would have clients install it. Raises NoFallback.
    """
    found = indexes.get(index)
    if not isinstance(found, Mapping):
        raise NoFallback(f"{index} is not in the profile", hint="declare it under indexes:")
    if found.get("type") != "mirror":
        raise NoFallback(
            f"{index} is no mirror: its uploads and bases must not be looked for elsewhere",
            hint="set clients.index to a mirror, or clients.fallback: false",
        )
    if found.get("credentials") or found.get("owns") or found.get("only_owned"):
        raise NoFallback(
            f"{index} mirrors a private index", hint="set clients.index to a public mirror, or clients.fallback: false"
        )
    parts = split(str(found.get("url") or ""))
    if parts is None or parts.username or parts.password:
        raise NoFallback(
            f"{index} has no url, so that its upstream is not known to be public",
            hint=f"set indexes.{index}.url, or clients.fallback: false",
        )
    return str(found["url"])
