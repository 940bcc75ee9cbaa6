"""Whatever is in the file of a bundle, on a page of an index or in a request to keep a file: no traceback, no path."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deployer.bundle import archive
from deployer.bundle.archive import Bundle
from deployer.bundle.manifest import SCHEMA, File, Index, Manifest, compare, travelling, without
from deployer.bundle.signature import public_keys
from deployer.devpi import simple
from deployer.errors import DeployerError, UsageError, VerificationError
from deployer.protocol import CachedRequest, KeepRequest, parsed
from tests.fuzzed import JSON, written

in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

MANIFEST = Manifest(
    schema=SCHEMA,
    created="2030-01-01T00:00:00+00:00",
    deployer="1",
    wheels=("deployer-1-py3-none-any.whl",),
    indexes={
        "root/pypi": Index(mirror="https://packages.example.com/", pages={"a": {"name": "a"}}),
        "root/dev": Index(),
    },
    files=(
        File(
            index="root/pypi",
            project="a",
            filename="a-1.tar.gz",
            sha256="a" * 64,
            size=1,
            file={"filename": "a-1.tar.gz"},
            companions={".asc": "b" * 64},
        ),
        File(index="root/dev", project="b", filename="b-1.tar.gz", sha256="c" * 64, size=2),
    ),
)
KEEP = asdict(
    KeepRequest(
        index="root/pypi", project="a", page={"files": []}, sha256="a" * 64, size=1, companions={".metadata": "eA=="}
    )
)
PAGE = {
    "meta": {"api-version": "1.0"},
    "projects": [{"name": "Alpha"}],
    "files": [{"filename": "a-1.tar.gz", "url": "../a-1.tar.gz", "hashes": {"sha256": "a" * 64}}],
}


@given(content=written(json.loads(MANIFEST.text)))
def test_a_manifest(content: bytes) -> None:
    try:
        found = Manifest.parse(content, what="it")
    except VerificationError as error:
        assert "\n" not in error.message
        return
    for file in found.files:
        assert Path(file.filename).name == file.filename and file.index.count("/") == 1
        assert ".." not in file.index.split("/")
    assert compare(found, MANIFEST) and without(found, MANIFEST)
    assert Manifest.parse(travelling(found).text.encode(), what="it")


@in_one_directory
@given(data=st.data())
def test_a_tar_file(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "good.tar"
    if not path.exists():
        with archive.writing(path, lambda _digest: True) as target:
            target.add("bundle.json", 3, [b"abc"])
            target.add(f"wheels/{'long' * 30}.whl", 600, [bytes(600)])
            target.finish(None)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    bad = tmp_path / "bad.tar"
    bad.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        bundle = Bundle(bad)
        for name, digest in bundle.sums().items():
            assert ".." not in name.split("/") and not name.startswith("/")
            bundle.check(name, digest)
    except DeployerError as error:
        assert "\n" not in error.message
    assert {one.name for one in tmp_path.iterdir()} == {"good.tar", "bad.tar"}


@in_one_directory
@given(content=st.binary(max_size=200) | st.just(b"ssh-ed25519 AAAA") | st.just(b"ssh-ed25519 " + b"A" * 5000))
def test_a_public_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pub"
    path.write_bytes(content)
    try:
        assert public_keys(path)
    except UsageError as error:
        assert error.hint


@given(content=written(PAGE), kind=st.sampled_from(["application/json", "text/html", ""]))
@example(content=b"<a href='http://[x/a-1.tar.gz'>", kind="text/html")
@example(content=b"<![x[<a href='//'><a href='%2e%2e%2fa-1.tar.gz'>", kind="text/html")
def test_a_page(content: bytes, kind: str) -> None:
    for read in (simple.projects, simple.files):
        try:
            found = read(content, kind, url="http://127.0.0.1:1/simple/")
        except ValueError:
            continue
        for one in found:
            if isinstance(one, simple.Link):
                assert "/" not in one.filename and one.filename.isprintable()


@given(content=written(KEEP) | JSON.map(json.dumps).map(str.encode))
def test_a_request_to_keep_a_file(content: bytes) -> None:
    found = KeepRequest.parse(content)
    if found is not None:
        assert KeepRequest.parse(found.line) == found
        assert "/" not in found.project and found.index.count("/") == 1


@given(content=written({"index": "root/pypi", "proof": ""}))
def test_a_request_for_a_list(content: bytes) -> None:
    try:
        told = parsed(content)
    except ValueError:
        return
    found = CachedRequest.parse(told)
    assert found is None or found.index.count("/") == 1
