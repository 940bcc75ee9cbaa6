"""What of a cache is saved, and what of a saved one is restored: pure choices."""

from __future__ import annotations

from typing import Any

from deployer.bundle.manifest import SCHEMA, File, Index, Manifest
from deployer.operations.saved_cache import asked_for, comparison, locked, names_in, within
from deployer.selection import LockedFile, Wanted

UPSTREAM = "https://packages.example.com/simple/"


def file(name: str, *, size: int = 10, digest: str = "a", index: str = "root/pypi") -> File:
    project = name.partition("-")[0]
    return File(index=index, project=project, filename=name, sha256=digest * 64, size=size, file={"filename": name})


SMALL, LARGE = file("small-1.0-py3-none-any.whl"), file("large-1.0-py3-none-any.whl", size=90, digest="b")
MIRROR = Index(mirror=UPSTREAM)


def manifest(*files: File, **indexes: Index) -> Manifest:
    told: dict[str, Any] = {"schema": SCHEMA, "created": "2030-01-01", "deployer": "1", "files": files}
    return Manifest(**told, indexes=indexes or {"root/pypi": MIRROR})


def line(path: str, status: int = 200) -> str:
    return f'{{"path":"{path}","status":{status}}}'


def test_the_largest_files_are_left_out_where_the_room_ends() -> None:
    assert within([LARGE, SMALL], None) == ([LARGE, SMALL], [])
    assert within([LARGE, SMALL], 100) == ([LARGE, SMALL], [])
    assert within([LARGE, SMALL], 99) == ([SMALL], [LARGE])
    assert within([LARGE, SMALL], 9) == ([], [LARGE, SMALL])


def test_one_content_under_two_names_takes_room_once() -> None:
    again = file("small-1.0-py3-none-any.whl", index="root/other")
    assert within([SMALL, again, LARGE], 100) == ([SMALL, again, LARGE], [])


def test_a_log_names_what_was_sent() -> None:
    lines = [
        'ut off"}',
        line("/root/pypi/+f/aaa/small-1.0-py3-none-any.whl"),
        line("/root/pypi/+f/bbb/local-1.0%2Bcu1-py3-none-any.whl.metadata", 206),
        line("/root/pypi/+canonical/packages/a/b/same-1.0.tar.gz", 304),
        line("/root/pypi/+f/ccc/gone-1.0.tar.gz", 404),
        '{"path":"/root/pypi/+f/ddd/late-1.0.ta',
        "null",
    ]
    found = names_in(lines)
    assert {"small-1.0-py3-none-any.whl", "local-1.0+cu1-py3-none-any.whl", "same-1.0.tar.gz"} <= found
    assert not found & {"gone-1.0.tar.gz", "late-1.0.ta"}
    assert asked_for([SMALL, LARGE], found) == [SMALL]
    assert asked_for([SMALL, LARGE], None) == [SMALL, LARGE], "requests that are not logged decide nothing"


def test_lock_files_choose_by_release_and_checksum() -> None:
    other = LockedFile(name=LARGE.filename, sha256="c" * 64, size=90)
    wanted = [
        Wanted(project="small", version="1.0"),
        Wanted(project="large", version="1.0", files=(other,)),
        Wanted(project="absent", version="2"),
    ]
    assert locked([SMALL, LARGE], wanted) == ([SMALL], ("absent==2", "large==1.0"))


def test_files_are_restored_where_they_fit() -> None:
    saved = manifest(SMALL, LARGE)
    assert comparison(saved, manifest()) == ([SMALL, LARGE], 0, [])
    assert comparison(saved, manifest(SMALL)) == ([LARGE], 1, [])


def test_another_upstream_takes_no_file() -> None:
    here = manifest(**{"root/pypi": Index(mirror="https://other.example.com/simple/")})
    new, same, (reason,) = comparison(manifest(SMALL), here)
    assert (new, same) == ([], 0) and "other.example.com" in reason


def test_an_index_that_is_absent_or_takes_uploads_takes_no_file() -> None:
    absent = comparison(manifest(SMALL), manifest(**{"root/other": MIRROR}))
    uploads = comparison(manifest(SMALL, **{"root/pypi": Index()}), manifest(SMALL, **{"root/pypi": Index()}))
    assert [found[0] for found in (absent, uploads)] == [[], []]
    assert all(found[2] for found in (absent, uploads))


def test_a_file_with_other_content_here_is_skipped() -> None:
    new, _, (reason,) = comparison(manifest(SMALL), manifest(file(SMALL.filename, digest="d")))
    assert new == [] and SMALL.filename in reason
