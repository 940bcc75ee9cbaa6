"""devpi's API for files and tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO
from urllib.parse import urljoin

from deployer import DISTRIBUTION
from deployer.devpi.answers import JsonObject, Reply, line, text
from deployer.devpi.api import DevpiApi
from deployer.devpi.connection import LONG, MAX_LIST, SLOW
from deployer.devpi.names import index_name, project_name, step, user_name
from deployer.errors import ServerRefused
from deployer.protocol import (
    ACTIVITY_ROUTE,
    CACHED_ROUTE,
    INVENTORY_ROUTE,
    KEEP_ROUTE,
    PROOF_HEADER,
    PRUNE_ROUTE,
    Activity,
    ActivityRequest,
    CachedAnswer,
    CachedRequest,
    InventoryAnswer,
    InventoryRequest,
    KeepRequest,
    Pruned,
    PruneRequest,
)
from deployer.secrets import Secret
from deployer.typed import built

NO_ORDERS = "run our own image, then: deployer restart"
"""The hint for a server without deployer's plugin."""
MAX_CACHED = 512 * 1024 * 1024
"""Largest list of a mirror's stored files in bytes: enough for half a million."""


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """A file of a project as an index lists it; ``url`` is on the same server. ``sha256`` is empty and ``size`` (bytes)
    is 0 when not told."""

    filename: str
    url: str
    sha256: str
    requires_python: str = ""
    size: int = 0


class PackageApi(DevpiApi):
    """:class:`DevpiApi` with files and tokens."""

    # Files

    def files(self, index: str, project: str) -> tuple[ListedFile, ...]:
        """The files of ``project`` (PEP 691) that ``index`` and its bases serve; empty when there is no such project.

        Names that are not plain file names are left out: a download must not write to another directory.
        """
        path = f"/{index_name(index)}/+simple/{project_name(project)}/"
        kind = {"Accept": "application/vnd.pypi.simple.v1+json"}
        reply = self._http.request("GET", path, headers=kind, limit=MAX_LIST, timeout=SLOW)
        if reply.status == 404:
            return ()
        files = self._http.object(self._http.accepted(reply, f"list {project} of {index}")).get("files")
        if not isinstance(files, list):
            self._http.not_devpi(f"no list of files of {project}")
        return tuple(found for item in files if (found := listed(item, f"{self.url}{path}")) is not None)

    def uploaded(self, index: str, project: str) -> dict[str, str]:
        """The files of ``project`` that are on ``index`` itself, each with its SHA-256 (may be empty)."""
        path = f"/{index_name(index)}/{project_name(project)}"
        reply = self._http.request("GET", path, params={"ignore_bases": ""}, limit=MAX_LIST, timeout=SLOW)
        if reply.status == 404:
            return {}
        versions = self._http.result(reply, f"list {project} of {index}", kind="projectconfig")
        found = dict(pair for version in versions.values() for pair in _links(version))
        if all(found.values()):
            return found
        # devpi-server 7 tells digests on the page for installers only, where a file of the index itself comes first.
        listed = {file.filename: file.sha256 for file in self.files(index, project)}
        return {filename: digest or listed.get(filename, "") for filename, digest in found.items()}

    def released(self, index: str, project: str) -> tuple[ListedFile, ...]:
        """The files of ``project`` that are on ``index`` itself: their addresses say so."""
        own = f"{self.url}/{index_name(index)}/"
        return tuple(file for file in self.files(index, project) if file.url.startswith(own))

    def cached(self, index: str, *, proof_key: str) -> CachedAnswer:
        """The files of the mirror ``index`` that are stored; only a server of ours lists them.

        ``proof_key``: hex, of the data directory.
        """
        reply = self._order(
            CACHED_ROUTE,
            CachedRequest(index=index_name(index)),
            f"list the files of {index}",
            proof_key=proof_key,
            otherwise=NO_ORDERS,
            limit=MAX_CACHED,
        )
        try:
            return built(CachedAnswer, self._http.object(reply))
        except ValueError as error:
            self._http.not_devpi(line(str(error)))

    def inventory(self, wanted: InventoryRequest, *, proof_key: str) -> InventoryAnswer:
        """What a server of ours has, or a part of it. ``proof_key``: hex, of the data directory."""
        reply = self._order(
            INVENTORY_ROUTE,
            wanted,
            "list what is cached",
            proof_key=proof_key,
            otherwise=NO_ORDERS,
            limit=MAX_CACHED,
        )
        try:
            return built(InventoryAnswer, self._http.object(reply))
        except ValueError as error:
            self._http.not_devpi(line(str(error)))

    def activity(self, wanted: ActivityRequest, *, proof_key: str) -> Activity:
        """What happens on a server of ours now. ``proof_key``: hex, of the data directory."""
        reply = self._order(
            ACTIVITY_ROUTE, wanted, "say what happens", proof_key=proof_key, otherwise=NO_ORDERS, limit=MAX_CACHED
        )
        try:
            return built(Activity, self._http.object(reply))
        except ValueError as error:
            self._http.not_devpi(line(str(error)))

    def prune(self, wanted: PruneRequest, *, proof_key: str) -> Pruned:
        """Have a server of ours prune its cache for some seconds. ``proof_key``: hex, of the data directory."""
        reply = self._order(
            PRUNE_ROUTE, wanted, "prune the cache", proof_key=proof_key, otherwise=NO_ORDERS, limit=MAX_CACHED
        )
        try:
            return built(Pruned, self._http.object(reply))
        except ValueError as error:
            self._http.not_devpi(line(str(error)))

    def keep(self, wanted: KeepRequest, content: Callable[[], Iterator[bytes]], *, proof_key: str) -> None:
        """Have a server of ours take a file of a mirror. ``content``: its bytes, from the beginning at each call.

        Raises ConflictError when the mirror has another file of that name.
        """
        first = wanted.line
        filename = f"{wanted.project} {wanted.sha256[:12]}"

        def send(proof: str) -> Reply:
            length = str(len(first) + wanted.size)
            headers = {**self._auth(), PROOF_HEADER: proof, "Content-Length": length}
            pieces = chain((first,), content())
            return self._http.request("POST", KEEP_ROUTE, pieces=pieces, headers=headers, timeout=LONG)

        order = KeepRequest.order(first)
        self._proved(send, order, f"take {filename} on {wanted.index}", proof_key=proof_key, otherwise=NO_ORDERS)

    def upload(self, index: str, form: Mapping[str, str | list[str]], *, filename: str, content: IO[bytes]) -> None:
        """Upload one file with its metadata (the form of the upload API that twine speaks), without a retry."""
        reply = self._http.request(
            "POST",
            f"/{index_name(index)}/",
            headers=self._auth(),
            timeout=LONG,
            form=form,
            files={"content": (filename, content, "application/octet-stream")},
        )
        self._http.accepted(reply, f"take {filename} on {index}")

    def download(self, file: ListedFile, target: IO[bytes]) -> str:
        """Write a listed file to ``target`` and return its SHA-256 (hex). Only this server is asked."""
        if not file.url.startswith(f"{self.url}/"):
            raise ServerRefused(
                f"{file.filename} is on another host: {line(file.url)}",
                hint="use pip download: this index keeps no files",
            )
        digest = hashlib.sha256()
        for piece in self._http.pieces(file.url, what=file.filename):
            digest.update(piece)
            target.write(piece)
        return digest.hexdigest()

    def content(self, url: str, *, what: str) -> Iterator[bytes]:
        """The bytes of a file of this server. ``what``: its name in messages."""
        if not url.startswith(f"{self.url}/"):
            raise ServerRefused(f"{what} is on another host: {line(url)}", hint="use pip download")
        return self._http.blocks(url, what=what)

    def push(self, index: str, project: str, version: str, *, target: str) -> tuple[str, ...]:
        """Copy a release from ``index`` to the index ``target`` on the server, and return its files there."""
        body: JsonObject = {"name": project, "version": version, "targetindex": index_name(target)}
        doing = f"push {project} {version} from {index} to {target}"
        reply = self._http.request("POST", f"/{index_name(index)}", body=body, headers=self._auth(), timeout=LONG)
        actions = self._http.object(self._http.accepted(reply, doing)).get("result")
        listed = [action for action in actions if isinstance(action, list)] if isinstance(actions, list) else []
        return tuple(str(action[-1]) for action in listed if "store_releasefile" in action)

    def remove(self, index: str, project: str, version: str = "") -> None:
        """Delete a version of a project, or all of it, with its files; only a volatile index allows it."""
        path = f"/{index_name(index)}/{project_name(project)}" + (f"/{step(version)}" if version else "")
        self._write("DELETE", path, None, f"remove {project} {version}".rstrip() + f" from {index}")

    # Tokens (the plugin devpi-tokens)

    def new_token(
        self, user: str, *, allowed: Sequence[str], expires: int, indexes: Sequence[str], projects: Sequence[str] = ()
    ) -> Secret:
        """A token of ``user`` that is valid until ``expires`` (seconds since 1970).

        ``allowed``: devpi's permissions, ``upload`` and ``pkg_read``; it can do nothing else.
        """
        body: JsonObject = {"allowed": list(allowed), "expires": expires}
        body |= {"indexes": [index_name(index) for index in indexes]} if indexes else {}
        body |= {"projects": [project_name(project) for project in projects]} if projects else {}
        reply = self._http.request("POST", f"/{user_name(user)}/+token-create", body=body, headers=self._auth())
        token = self._tokens(reply, f"make a token of {user}", kind="token-info").get("token")
        if not isinstance(token, str) or not token:
            self._http.not_devpi("no token in the answer")
        return Secret(token)

    def tokens(self, user: str) -> dict[str, tuple[str, ...]]:
        """The ids of the tokens of ``user``, each with what restricts it (``expires=…``)."""
        reply = self._http.request("GET", f"/{user_name(user)}/+tokens", headers=self._auth())
        tokens = self._tokens(reply, f"list the tokens of {user}", kind="tokens-info").get("tokens")
        if not isinstance(tokens, dict):
            self._http.not_devpi("no tokens in the answer")
        return {
            line(name): tuple(line(str(one)) for one in restrictions)
            for name, info in tokens.items()
            if isinstance(info, dict) and isinstance(restrictions := info.get("restrictions", []), list)
        }

    def revoke_token(self, user: str, token: str) -> None:
        """End a token by its id, at once."""
        self._write("DELETE", f"/{user_name(user)}/+tokens/{step(token)}", None, f"revoke token {token}")

    def _tokens(self, reply: Reply, doing: str, *, kind: str) -> JsonObject:
        if reply.status in (404, 405):
            raise ServerRefused(
                f"{self.url} refused to {doing}: it has no tokens",
                hint=f"run our own image, or install '{DISTRIBUTION}[server]' where it runs, then: deployer restart",
            )
        return self._http.result(reply, doing, kind=kind)


def plain(filename: str) -> bool:
    """Whether this is a plain file name: not hidden, without a directory."""
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+!-]{0,254}", filename))


def listed(item: object, page: str) -> ListedFile | None:
    """A file of a page at the address ``page``; ``None`` for what is none."""
    if not isinstance(item, dict):
        return None
    hashes = item.get("hashes")
    filename = text(item.get("filename"))
    if not plain(filename):
        return None
    return ListedFile(
        filename=filename,
        url=_address(page, text(item.get("url"))),
        sha256=text(hashes.get("sha256")) if isinstance(hashes, dict) else "",
        requires_python=line(text(item.get("requires-python"))),
        size=size if type(size := item.get("size")) is int and 0 < size < 1 << 63 else 0,
    )


def _address(page: str, url: str) -> str:
    """Resolve a ``url`` of ``page``; empty when it is invalid."""
    try:
        address = urljoin(page, url).partition("#")[0]
    except ValueError:
        return ""
    return address if address.isprintable() else ""


def _links(version: object) -> Iterator[tuple[str, str]]:
    links = version.get("+links") if isinstance(version, dict) else None
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "releasefile":
            hashes = link.get("hashes")
            spec = text(link.get("hash_spec")).removeprefix("sha256=")
            known = text(hashes.get("sha256")) if isinstance(hashes, dict) else spec
            yield text(link.get("href")).rpartition("/")[2].partition("#")[0], known
