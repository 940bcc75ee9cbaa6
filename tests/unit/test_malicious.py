"""Records in OSV's format, and the list of malicious releases that is made of them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.devpi.malicious import Collected, collect
from deployer.errors import UsageError
from deployer.operations.malicious import read


def record(name: str = "Evil_Package", **changes: Any) -> dict[str, Any]:
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "versions": ["1.0", "1.1.0"], **changes}
    return {"id": "MAL-2025-1", "affected": [affected]}


def test_versions_are_canonical_and_names_normalised() -> None:
    assert collect([record()]) == Collected(1, {"evil-package": {"1": "MAL-2025-1", "1.1": "MAL-2025-1"}})


@pytest.mark.parametrize(
    "changes",
    [
        {"versions": []},
        {"versions": None},
        {"versions": [], "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]},
        {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]},
    ],
)
def test_without_an_end_every_version_counts(changes: dict[str, Any]) -> None:
    assert collect([record(**changes)]).names == {"evil-package": {"*": "MAL-2025-1"}}


def test_with_an_end_the_listed_versions_count() -> None:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2"}]}]
    assert collect([record(ranges=ranges)]).names == {"evil-package": {"1": "MAL-2025-1", "1.1": "MAL-2025-1"}}


@pytest.mark.parametrize(
    "other",
    [
        {**record(), "id": "GHSA-1"},
        {**record(), "withdrawn": "2025-01-01T00:00:00Z"},
        record(package={"ecosystem": "npm", "name": "evil"}),
        record(package=None),
        {"id": "MAL-1"},
        {"id": "MAL-1", "affected": [7]},
        7,
        None,
    ],
)
def test_other_records_do_not_count(other: object) -> None:
    assert collect([other]) == Collected()


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["id", "affected", "package", "ecosystem", "name", "versions", "ranges", "events"]),
                inner,
            )
        ),
    )
)
def test_any_record_is_read(found: object) -> None:
    collect([found, {"id": "MAL-1", "affected": found}, record(versions=found, ranges=found)])


def test_files_archives_and_directories(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/one.json").write_text(json.dumps(record("one")))
    (tmp_path / "two.json").write_text(json.dumps([record("two"), record("three")]))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("four.json", json.dumps(record("four")))
        archive.writestr("README", "no record")
    found = read([tmp_path / "deep", tmp_path / "two.json", tmp_path / "all.zip"])
    assert set(found.names) == {"one", "two", "three", "four"}


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    for path in (tmp_path / "x.json", tmp_path):
        with pytest.raises(UsageError, match="is not JSON"):
            read([path])


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError):
            read([path])
