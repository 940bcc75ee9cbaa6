"""Manifests of bundles: deltas, comparison with a server, and invalid manifests."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from deployer.bundle.manifest import (
    SCHEMA,
    File,
    Index,
    Manifest,
    ServerImage,
    compare,
    named,
    total,
    travelling,
    without,
)
from deployer.errors import VerificationError
from deployer.operations.bundle import choose
from deployer.selection import LockedFile, Wanted

UPSTREAM = "https://packages.example.com/simple/"


def file(name: str, *, index: str = "root/pypi", digest: str = "a", size: int = 10, project: str = "") -> File:
    return File(
        index=index,
        project=project or name.partition("-")[0],
        filename=name,
        sha256=digest * 64,
        size=size,
        file={"filename": name} if index == "root/pypi" else {},
        companions={".metadata": "f" * 64} if index == "root/pypi" else {},
    )


ALPHA, BETA = file("alpha-1.0-py3-none-any.whl"), file("beta-1.0.tar.gz", digest="b")
OWN = file("own-1.0-py3-none-any.whl", index="root/dev", digest="c")
INDEXES = {
    "root/pypi": Index(mirror=UPSTREAM, pages={"alpha": {"name": "alpha"}, "beta": {"name": "beta"}}),
    "root/dev": Index(),
}
IMAGE = ServerImage(ref="localhost/deployer-devpi:1", id="sha256:1", build="x")


def manifest(*files: File, **fields: Any) -> Manifest:
    told = {"schema": SCHEMA, "created": "2030-01-01", "deployer": "1", "indexes": INDEXES, "files": files}
    return Manifest(**{**told, **fields})


WHOLE = manifest(ALPHA, BETA, OWN, image=IMAGE, wheels=("deployer-1-py3-none-any.whl",))


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert Manifest.parse(WHOLE.text.encode(), what="it") == WHOLE
    assert Manifest.parse(travelling(WHOLE).text.encode(), what="it") == travelling(WHOLE)


def test_the_delta_holds_what_the_other_side_lacks() -> None:
    there = travelling(manifest(ALPHA, image=IMAGE))
    delta = without(WHOLE, there)
    assert delta.files == (BETA, OWN)
    assert delta.indexes["root/pypi"].pages == {"beta": {"name": "beta"}}
    assert (delta.image, delta.wheels, delta.delta) == (None, (), True)
    assert without(WHOLE, travelling(WHOLE)).files == ()
    assert without(WHOLE, replace(there, deployer="0")).wheels == WHOLE.wheels


def test_a_file_with_other_content_is_in_the_delta_and_is_a_conflict() -> None:
    there = manifest(replace(ALPHA, sha256="d" * 64), OWN)
    assert without(WHOLE, there).files == (ALPHA, BETA)
    found = compare(WHOLE, there)
    assert (found.new, found.same) == ((BETA,), (OWN,))
    (line,) = found.conflicts
    assert "root/pypi" in line and ALPHA.filename in line


def test_an_image_with_another_id_of_the_same_build_is_the_same() -> None:
    for other, same in (
        (replace(IMAGE, id="sha256:2"), True),
        (replace(IMAGE, id="sha256:2", build="y"), False),
        (replace(IMAGE, id="sha256:2", build=""), False),
        (replace(IMAGE, ref="localhost/deployer-devpi:2"), False),
        (None, False),
    ):
        assert (without(WHOLE, manifest(image=other)).image is None) is same


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"root/pypi": INDEXES["root/pypi"]}, "there is no index root/dev"),
        ({**INDEXES, "root/pypi": Index()}, "root/pypi is no mirror"),
        ({**INDEXES, "root/dev": Index(mirror=UPSTREAM)}, "root/dev is a mirror"),
        ({**INDEXES, "root/pypi": Index(mirror="https://other.example.com/simple/")}, "mirrors https://other"),
    ],
)
def test_an_index_that_differs_is_a_conflict(there: dict[str, Index], said: str) -> None:
    (line,) = compare(WHOLE, manifest(indexes=there)).conflicts
    assert said in line


def test_only_named_indexes() -> None:
    assert named(WHOLE, ["root/dev"]).files == (OWN,)
    assert set(named(WHOLE, ["root/dev"]).indexes) == {"root/dev"}


def test_each_content_counts_once() -> None:
    twice = replace(ALPHA, index="root/other")
    assert total([ALPHA, twice, BETA]) == 20
    assert manifest(ALPHA, twice).blobs == (ALPHA.sha256, "f" * 64)


def changed(**fields: Any) -> bytes:
    told = json.loads(WHOLE.text)
    for path, value in fields.items():
        place, parts = told, path.split("__")
        for part in parts[:-1]:
            place = place[int(part) if part.isdecimal() else part]
        place[int(parts[-1]) if parts[-1].isdecimal() else parts[-1]] = value
    return json.dumps(told).encode()


INVALID = {
    "a path as a name": changed(files__0__filename="../x.whl"),
    "a name of Windows": changed(files__0__filename="..\\x.whl"),
    "an option as a name": changed(files__0__filename="-x.whl"),
    "a line break in a name": changed(files__0__filename="x\n.whl"),
    "another name on the page": changed(files__0__filename="other.whl"),
    "a path as an index": changed(indexes={"../../x": {}}),
    "an index that is not declared": changed(files__2__index="root/none"),
    "a project that is not normal": changed(files__0__project="Al_pha"),
    "a page of an invalid project": changed(indexes__root={}, indexes={"root/pypi": {"pages": {"../x": {}}}}),
    "a short checksum": changed(files__0__sha256="aa"),
    "a checksum in capitals": changed(files__0__sha256="A" * 64),
    "an unknown companion": changed(files__0__companions={".exe": "a" * 64}),
    "no size": changed(files__0__size=0),
    "a size that is no number": changed(files__0__size="9"),
    "a huge size": changed(files__0__size=1 << 70),
    "a wheel elsewhere": changed(wheels=["../x.whl"]),
    "a name twice": changed(files__1=json.loads(WHOLE.text)["files"][0]),
    "a newer format": changed(schema=SCHEMA + 1),
    "a list": b"[]",
    "no JSON": b"{",
    "deep nesting": b"[" * 100_000,
    "no text": b"\xff\xfe",
    "nothing": b"",
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_manifest_is_refused(case: str) -> None:
    with pytest.raises(VerificationError) as caught:
        Manifest.parse(INVALID[case], what="it")
    assert "\n" not in caught.value.message


def test_lock_files_choose_by_release_and_hash() -> None:
    other = file("alpha-2.0-py3-none-any.whl", digest="e")
    wanted = {
        ("alpha", "1.0"): Wanted(project="alpha", version="1.0"),
        ("beta", "1"): Wanted(project="beta", version="1", files=(LockedFile(name=BETA.filename, sha256=BETA.sha256),)),
        ("own", "1.0"): Wanted(project="own", version="1.0", sha256s=frozenset({"d" * 64})),
    }
    chosen, found = choose([ALPHA, BETA, OWN, other], wanted)
    assert chosen == [ALPHA, BETA]
    assert found == {("alpha", "1.0"), ("beta", "1")}
