"""What a form asks for, as one request of the index's own API. Pure.

Permissions, checks and the log of changes are those of the API: nothing is decided here but what devpi would take and
should not, such as an index that merges two mirrors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from deployer.protocol import PruneRequest
from deployer.server.devpi import ordered
from deployer.server.devpi.installed import installed
from deployer.server.web.catalog import Catalog, Index
from deployer.server.web.routes import PREFIX

Fields = Mapping[str, Sequence[str]]
MANAGE = f"{PREFIX}manage"
DAYS = 86_400.0
"""Seconds of a day."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_READ = "pkg_read"
_RIGHTS = (("upload",), (_READ,), ("upload", _READ))


class Invalid(Exception):
    """A form that can't be an order; the message is for the person who sent it."""


@dataclass(frozen=True)
class Order:
    """``path``: of the API, quoted. ``done``: what is said once the API has taken it. ``back``: the page after that.
    ``first``: what has to be done before it."""

    method: str
    path: str
    body: Mapping[str, object] | None
    done: str
    back: str
    first: Order | None = None


def one(fields: Fields, name: str) -> str:
    """The only value of a field, as one line; empty without it."""
    return " ".join("".join(fields.get(name, ("",))[-1:]).split())


def _name(fields: Fields, name: str, what: str) -> str:
    value = one(fields, name)
    if not _NAME.fullmatch(value):
        raise Invalid(f"{what} has 1 to 64 letters, digits and . _ -, and begins with a letter or digit.")
    return value


def _stage(fields: Fields) -> str:
    user, _, index = one(fields, "index").partition("/")
    if not (_NAME.fullmatch(user) and _NAME.fullmatch(index)):
        raise Invalid("The name of an index is USER/NAME, of letters, digits and . _ -")
    return f"{user}/{index}"


def _page(user: str) -> str:
    return f"{MANAGE}/{quote(user)}"


def create_user(fields: Fields, known: Catalog) -> Order:
    user, password = _name(fields, "user", "The name of a user"), "".join(fields.get("password", ("",))[-1:])
    if len(password) < 8:
        raise Invalid("A password has 8 characters or more.")
    body = {"password": password, "email": one(fields, "email")}
    return Order("PUT", f"/{quote(user)}", body, f"The user {user} was created.", _page(user))


def set_password(fields: Fields, known: Catalog) -> Order:
    user, password = _name(fields, "user", "The name of a user"), "".join(fields.get("password", ("",))[-1:])
    if len(password) < 8:
        raise Invalid("A password has 8 characters or more.")
    return Order("PATCH", f"/{quote(user)}", {"password": password}, f"{user} has a new password.", _page(user))


def modify_user(fields: Fields, known: Catalog) -> Order:
    user = _name(fields, "user", "The name of a user")
    body = {key: one(fields, key) for key in ("email", "title")}
    return Order("PATCH", f"/{quote(user)}", body, f"The user {user} was changed.", _page(user))


def delete_user(fields: Fields, known: Catalog) -> Order:
    user = _name(fields, "user", "The name of a user")
    if owned := [name for name in known.indexes if name.startswith(f"{user}/")]:
        raise Invalid(f"{user} owns {', '.join(owned)}: delete these indexes first.")
    _confirmed(fields, user)
    return Order("DELETE", f"/{quote(user)}", None, f"The user {user} was deleted.", MANAGE)


def create_index(fields: Fields, known: Catalog) -> Order:
    name = _stage({"index": [f"{one(fields, 'user')}/{one(fields, 'name')}"]})
    if name in known.indexes:
        raise Invalid(f"The index {name} exists.")
    devpi = installed()
    if one(fields, "kind") == "mirror":
        url = one(fields, "url")
        if not re.fullmatch(r"https?://[^\s@]+", url):
            raise Invalid("The upstream of a mirror is an address such as https://packages.example.com/simple/.")
        body: dict[str, object] = {"type": devpi.mirror, devpi.url: url, devpi.no_list: True}
    else:
        bases = _bases(fields)
        _check_merged(known, name, bases)
        body = {"type": devpi.stage, "bases": bases, "volatile": False, "acl_toxresult_upload": []}
        body["mirror_whitelist"] = []
    return Order("PUT", f"/{quote(name)}", body, f"The index {name} was created.", f"/{quote(name)}")


def modify_index(fields: Fields, known: Catalog) -> Order:
    """``base``: the bases to keep and to add, each with its ``place``, a number."""
    index = _known(fields, known)
    body: dict[str, object] = {"title": one(fields, "title")}
    if not index.is_mirror:
        bases = _bases(fields)
        if index.kind == ordered.TYPE and sorted(bases) != sorted(index.bases):
            raise Invalid("An ordered index gets other bases from the profile only: deployer index apply.")
        if index.kind != ordered.TYPE:
            _check_merged(known, index.name, bases)
        body |= {"bases": bases, "acl_upload": one(fields, "acl_upload").replace(",", " ").split()}
    return Order("PATCH", f"/{quote(index.name)}", body, f"{index.name} was changed.", f"/{quote(index.name)}")


def delete_index(fields: Fields, known: Catalog) -> Order:
    index = _known(fields, known)
    if above := [other.name for other in known.indexes.values() if index.name in other.bases]:
        raise Invalid(f"{', '.join(above)} builds on {index.name}: change its bases first.")
    _confirmed(fields, index.name)
    done, path = f"The index {index.name} was deleted with its packages.", f"/{quote(index.name)}"
    # devpi deletes volatile indexes only; the user has confirmed.
    return Order("DELETE", path, None, done, MANAGE, first=Order("PATCH", path, {"volatile": True}, "", path))


def remove(fields: Fields, known: Catalog) -> Order:
    """A version of an uploaded project, or, without one, the project."""
    index, project, version = _known(fields, known), one(fields, "project"), one(fields, "version")
    if not project or "/" in project or "/" in version:
        raise Invalid("There is no such project.")
    _confirmed(fields, version or project)
    path = "/".join(quote(part, safe="") for part in (project, version) if part)
    done = f"{' '.join(part for part in (project, version) if part)} was removed from {index.name}."
    return Order("DELETE", f"/{quote(index.name)}/{path}", None, done, f"/{quote(index.name)}")


def refresh(fields: Fields, known: Catalog) -> Order:
    index, project = _known(fields, known), one(fields, "project")
    if not _NAME.fullmatch(project):
        raise Invalid("There is no such project.")
    path = f"/{quote(index.name)}/+simple/{quote(project)}/refresh"
    done = f"The upstream of {project} was asked anew."
    return Order("POST", path, None, done, f"/{quote(index.name)}/{quote(project)}")


def create_token(fields: Fields, known: Catalog, *, now: float) -> Order:
    """``days`` until it expires; ``index`` and ``project`` limit it, ``allowed`` says what it may do."""
    user = _name(fields, "user", "The name of a user")
    days, allowed = one(fields, "days"), one(fields, "allowed").split("+")
    if not (days.isascii() and days.isdecimal() and 0 < int(days[:6]) <= 3650) or tuple(allowed) not in _RIGHTS:
        raise Invalid("A token lasts 1 to 3650 days, and may upload, read, or both.")
    body: dict[str, object] = {"allowed": allowed, "expires": int(now + int(days) * DAYS)}
    if one(fields, "index"):
        index = _known(fields, known)
        # A page links to files of its bases, so a token that may not read them is of no use.
        body["indexes"] = sorted({index.name, *index.reads}) if _READ in allowed else [index.name]
    if one(fields, "project"):
        if _READ in allowed:
            raise Invalid("A token limited to a project can't read: create two tokens, or leave out the project.")
        body["projects"] = [one(fields, "project")]
    return Order("POST", f"/{quote(user)}/+token-create", body, "", _page(user))


def prune(fields: Fields, *, now: float, dry: bool) -> PruneRequest:
    """``days`` for which nobody used what is removed; ``keep``: gigabytes of the cache that stay."""
    days, keep = one(fields, "days"), one(fields, "keep") or "0"
    if not re.fullmatch(r"\d{1,4}", days, re.ASCII) or not re.fullmatch(r"\d{1,7}(\.\d{1,3})?", keep, re.ASCII):
        raise Invalid("Give a number of days, and of gigabytes.")
    most = int(float(keep) * 10**9)
    return PruneRequest(before=int(now - int(days) * DAYS), to_bytes=most or None, dry=dry)


def revoke_token(fields: Fields, known: Catalog) -> Order:
    user, token = _name(fields, "user", "The name of a user"), one(fields, "token")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", token):
        raise Invalid("There is no such token.")
    return Order("DELETE", f"/{quote(user)}/+tokens/{token}", None, "The token was revoked.", _page(user))


def _known(fields: Fields, known: Catalog) -> Index:
    found = known.of(_stage(fields))
    if found is None:
        raise Invalid(f"There is no index {one(fields, 'index')}.")
    return found


def _confirmed(fields: Fields, name: str) -> None:
    if one(fields, "confirm") != name:
        raise Invalid(f"To delete it, type its name: {name}.")


def _bases(fields: Fields) -> list[str]:
    """The bases in the order of their places, then those that were added; a base whose place is empty goes."""
    names, places = fields.get("base", ()), fields.get("place", ())
    placed = [(int(place[:6]), name) for place, name in zip(places, names, strict=False) if place.isdecimal()]
    kept = [name for _, name in sorted(placed, key=lambda entry: entry[0])]
    return list(dict.fromkeys(name for name in (*kept, *names[len(places) :]) if name))


def _check_merged(known: Catalog, name: str, bases: Sequence[str]) -> None:
    """Refuse bases with which an index comes to merge two mirrors: a public release of a higher version would replace a
    private one (dependency confusion)."""
    if unknown := [base for base in bases if base not in known.indexes or base == name]:
        raise Invalid(f"There is no index {unknown[0]} to build on.")
    before = {index.name: index.bases for index in known.indexes.values()}
    after = {**before, name: tuple(bases)}
    for index in after:
        merged = _merged(known, after, index)
        if merged and merged != _merged(known, before, index):
            raise Invalid(
                f"{index} would merge {' and '.join(merged)}: a public release of a higher version would replace a "
                "private one. An index of type ordered does not: declare it in the profile."
            )


def _merged(known: Catalog, bases: Mapping[str, Sequence[str]], index: str) -> tuple[str, ...]:
    """The mirrors below ``index`` that no ordered index separates: clients take the highest version of them all."""

    def below(name: str) -> list[str]:
        found = [name]
        for one_below in found:
            found += [base for base in bases.get(one_below, ()) if base not in found]
        return found

    def mirrors(name: str) -> list[str]:
        return [other for other in below(name) if other in known.indexes and known.indexes[other].is_mirror]

    all_of = mirrors(index)
    kinds = {name: known.indexes[name].kind for name in below(index) if name in known.indexes}
    apart = [set(mirrors(name)) for name, kind in kinds.items() if kind == ordered.TYPE]
    return tuple(
        mirror
        for mirror in all_of
        if any(other != mirror and not any({mirror, other} <= both for both in apart) for other in all_of)
    )


ACTIONS: Mapping[str, Callable[[Fields, Catalog], Order]] = {
    "create-user": create_user,
    "set-password": set_password,
    "modify-user": modify_user,
    "delete-user": delete_user,
    "create-index": create_index,
    "modify-index": modify_index,
    "delete-index": delete_index,
    "remove": remove,
    "refresh": refresh,
    "revoke-token": revoke_token,
}
