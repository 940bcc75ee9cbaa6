"""Which jobs get which tokens, as the profile says (``server.oidc``). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from deployer.protocol import parsed

NAME = "deployer-oidc"
_PERMISSIONS = {"read": "pkg_read", "upload": "upload"}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A job whose ID token has these claims gets a token of ``user``.

    ``claims``: by name, with ``*`` for any characters. ``allowed``: devpi's permissions. ``seconds``: its lifetime.
    """

    issuer: str
    audience: str
    claims: Mapping[str, str]
    user: str
    allowed: tuple[str, ...]
    indexes: tuple[str, ...]
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The rule in an argument of ``serve``, as JSON. Raises ValueError."""
        try:
            found = parsed(text)
            return cls(
                issuer=str(found["issuer"]),
                audience=str(found["audience"]),
                claims={str(name): str(pattern) for name, pattern in found["claims"].items()},
                user=str(found["user"]),
                allowed=tuple(_PERMISSIONS[one] for one in found["permissions"]),
                indexes=tuple(map(str, found["indexes"])),
                seconds=int(found["seconds"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"an invalid rule: {error}") from None

    def admits(self, claims: Mapping[str, Any]) -> bool:
        """Whether these verified claims are those of the rule."""
        if claims.get("iss") != self.issuer or self.audience not in _words(claims.get("aud")):
            return False
        return bool(self.claims) and all(
            any(matches(pattern, word) for word in _words(claims.get(name))) for name, pattern in self.claims.items()
        )


def matches(pattern: str, word: str) -> bool:
    """Whether ``word`` is ``pattern``, in which ``*`` stands for any characters."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), word, re.DOTALL) is not None


def _words(value: Any) -> list[str]:
    """The values of a claim: a word, a yes or no, or a list of words."""
    if isinstance(value, bool):
        return [str(value).lower()]
    found = value if isinstance(value, list) else [value]
    return [one for one in found if isinstance(one, str)]


@dataclass(frozen=True)
class Rules:
    """The rules in their order. Registered as a devpi plugin, so that they can be found."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """Raises ValueError."""
        return cls(tuple(map(Rule.parse, texts)))

    @property
    def issuers(self) -> frozenset[str]:
        return frozenset(rule.issuer for rule in self.rules)

    def audiences(self, issuer: str) -> list[str]:
        return [rule.audience for rule in self.rules if rule.issuer == issuer]

    def admitting(self, claims: Mapping[str, Any]) -> Rule | None:
        """The first rule that admits these verified claims."""
        return next((rule for rule in self.rules if rule.admits(claims)), None)


def given(config: Any) -> Rules:
    """The rules of this server. ``config``: devpi's."""
    return config.pluginmanager.get_plugin(NAME) or Rules()
