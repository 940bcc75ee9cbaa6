"""What a server says of the upstreams of its mirrors, without a login."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from deployer.devpi.answers import text
from deployer.devpi.connection import MAX_LIST, SLOW
from deployer.devpi.names import index_name, project_name
from deployer.devpi.packages import ListedFile, PackageApi, listed


class UpstreamApi(PackageApi):
    """:class:`PackageApi` with the upstreams of mirrors."""

    def upstream(self, index: str) -> str:
        """The address of the upstream of ``index``, without credentials; empty for an index that is no mirror."""
        parts = urlsplit(text(self._config(index).get("mirror_url")))
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def bases(self, index: str) -> tuple[str, ...]:
        """The indexes that ``index`` inherits from."""
        found = self._config(index).get("bases")
        return tuple(text(base) for base in found) if isinstance(found, list) else ()

    def originals(self, mirror: str, project: str) -> tuple[ListedFile, ...] | None:
        """The files of ``project`` with their addresses at the upstream; ``None`` when ``mirror`` is no mirror, or has
        no such project."""
        path = f"/{index_name(mirror)}/+canonical/simple/{project_name(project)}/"
        kind = {"Accept": "application/vnd.pypi.simple.v1+json"}
        reply = self._http.request("GET", path, headers=kind, limit=MAX_LIST, timeout=SLOW)
        if reply.status == 404:
            return None
        files = self._http.object(self._http.accepted(reply, f"list {project} of {mirror}")).get("files")
        if not isinstance(files, list):
            self._http.not_devpi(f"no list of files of {project}")
        return tuple(found for item in files if (found := listed(item, f"{self.url}{path}")) is not None)

    def _config(self, index: str) -> dict[str, object]:
        reply = self._http.request("GET", f"/{index_name(index)}", params={"no_projects": ""})
        return dict(self._http.result(reply, f"open index {index}", kind="indexconfig"))
