"""What an upgrade reads of devpi-server 6's database is what devpi's own export says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from zipfile import ZipFile

import pytest

from deployer.server.devpi import stored
from deployer.server.upgrade import data6
from tests.indexed_server import upload
from tests.plain_devpi import PlainDevpi
from tests.server_process import auth_header, login, request
from tests.upstream import Upstream, make_sdist, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

EXPORT = "import sys; from devpi_server.importexport import export; sys.exit(export())"


def documentation(version: str) -> bytes:
    made = BytesIO()
    with ZipFile(made, "w") as archive:
        archive.writestr("index.html", f"of {version}")
    return made.getvalue()


def form(fields: dict[str, str], filename: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    parts = [f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    head = f'--x\r\nContent-Disposition: form-data; name="content"; filename="{filename}"\r\n\r\n'.encode()
    return b"".join((*parts, head, content, b"\r\n--x--\r\n")), {"Content-Type": "multipart/form-data; boundary=x"}


def filled(server: PlainDevpi, upstream: Upstream) -> dict[str, str]:
    auth = auth_header(login(server.port, server.password)[1]["result"]["password"])

    def put(path: str, **body: Any) -> None:
        assert request(server.port, "PUT", path, body=body, headers=auth)[0] in (200, 201), path

    put("/dev", password="a secret of dev", email="dev@example.com")
    put("/root/pypi", type="mirror", mirror_url=upstream.simple_url, mirror_no_project_list=True)
    put("/root/stage", bases=["root/pypi"], volatile=True, mirror_whitelist=["*"], acl_upload=["root", "dev"])
    put("/dev/other", bases=["root/stage"], title="«ü»", custom_data="x")
    for wheel in (make_wheel("Some.Name", "1.0"), make_wheel("Some.Name", "2.0"), make_sdist("lone", "0.1")):
        assert upload(server, auth, "root/stage", wheel) == 200  # type: ignore[arg-type]
    for version in ("1.0", "2.0"):
        body, headers = form(
            {":action": "doc_upload", "name": "Some.Name", "version": version}, "docs.zip", documentation(version)
        )
        asked = Request(f"{server.url}/root/stage/", data=body, headers={**auth, **headers})
        with urlopen(asked, timeout=60) as answer:
            assert answer.status == 200
    assert request(server.port, "DELETE", "/root/stage/lone/0.1", headers=auth)[0] == 200
    page = {"Accept": "text/html", "User-Agent": "pip/24.0"}
    _, text = request(server.port, "GET", "/root/pypi/+simple/demo/", headers=page)
    path = re.findall(rb'href="\.\./\.\./(\+f/[^"#]+)', text)[0].decode()
    assert request(server.port, "GET", f"/root/pypi/{path}")[0] == 200
    return auth


def test_it_is_what_devpis_own_export_says(devpi: PlainDevpi, tmp_path: Path) -> None:
    with Upstream([make_wheel("demo", "1.0"), make_wheel("demo", "1.1")]) as upstream:
        auth = filled(devpi, upstream)
    database = devpi.serverdir / ".sqlite"
    with stored.connect(database) as connection:
        before = data6.last_serial(connection)
    assert upload(devpi, auth, "root/stage", make_wheel("later", "1.0")) == 200  # type: ignore[arg-type]
    devpi.stop()
    with stored.connect(database) as connection:
        data = data6.read(connection)
    with stored.connect(database) as connection:
        assert data6.read(connection, since=before).touched == {("root/stage", "later")}
    later = ("root/stage", "later")
    with stored.connect(database) as connection:  # a later pass reads this project alone
        part = data6.overview(connection, since=before)
        data6.fill(connection, part, part.touched)
    assert (dict(part.files), dict(part.mirrored)) == ({later: data.files[later]}, {})
    assert (part.versions[later], set(part.versions)) == (data.versions[later], set(data.versions))
    assert (part.users, part.indexes) == (data.users, data.indexes)
    words = ["--serverdir", str(devpi.serverdir), "--include-mirrored-files", str(tmp_path / "exported")]
    subprocess.run([sys.executable, "-c", EXPORT, *words], check=True, capture_output=True)
    exported = json.loads((tmp_path / "exported/dataindex.json").read_text())
    users = {name: {**config, "username": name} for name, config in data.users.items()}
    assert users == exported["users"]
    assert data.indexes == {name: index["indexconfig"] for name, index in exported["indexes"].items()}
    for index, said in exported["indexes"].items():
        files = {project: files for (where, project), files in data.files.items() if where == index}
        versions = {project: found for (where, project), found in data.versions.items() if where == index}
        if data.indexes[index]["type"] == "mirror":
            here = [one for (where, _), found in data.mirrored.items() if where == index for one in found]
            assert [one.entry for one in here] == [one["entrymapping"] for one in said["files"]]
            continue
        assert versions == said["projects"]
        assert comparable([one for found in files.values() for one in found]) == comparable(said["files"])


def comparable(files: list[dict[str, Any]]) -> list[str]:
    """Descriptions of files without the places, which an export chooses itself."""
    told = [{key: value for key, value in one.items() if key not in ("relpath", "projectname")} for one in files]
    return sorted(json.dumps(one, sort_keys=True) for one in told)
