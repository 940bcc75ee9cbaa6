"""The build context of our image: what is in it, what never is, and when a new build is due."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployer import image
from deployer.errors import ImageUnavailable, Refused
from deployer.image import DEFAULT_BASE, PipSettings, build_digest, dockerfile, prepare, reference
from deployer.resources import templates_dir
from deployer.spec import LABEL_BASE, LABEL_BUILD, BuildRequest

SECRET = "s3cr3t-t0ken"
WITH_SECRET = PipSettings(index_url=f"https://deploy:{SECRET}@packages.example.com/simple/")


def made(
    directory: Path, pip: PipSettings | None = None, *, base: str = "base:1", secrets_ok: bool = True, **more: str
) -> BuildRequest:
    return prepare(directory, base=base, pip=pip or PipSettings(), secrets_ok=secrets_ok, **more)


def everything_in(context: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(context.rglob("*")) if path.is_file())


def test_the_context_holds_the_server_the_locks_and_nothing_else_of_ours(tmp_path: Path) -> None:
    context = made(tmp_path).context
    names = {str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()}
    assert {"Dockerfile", "requirements.txt", "deployer/__init__.py", "deployer/server/__main__.py"} <= names
    ours = {name for name in names if name.startswith("deployer/")}
    assert {name for name in ours if not name.startswith(("deployer/server/", "deployer/protocol/"))} == {
        "deployer/__init__.py",
        "deployer/distribution.py",
    }
    assert "deployer/protocol/values.py" in ours


def test_what_pip_needs_is_passed_on(tmp_path: Path) -> None:
    bundle = tmp_path / "corporate.pem"
    bundle.write_text("a certificate")
    settings = PipSettings(
        index_url="https://packages.example.com/simple/",
        cert=str(bundle),
        proxy="http://proxy.example.com:3128",
        timeout=90,
    )
    request = made(tmp_path / "build", settings, secrets_ok=False)
    assert dict(request.build_args) | {"BUILT_AT": ""} == {
        "BUILT_AT": "",
        "PIP_INDEX_URL": "https://packages.example.com/simple/",
        "PIP_DEFAULT_TIMEOUT": "90",
        "HTTP_PROXY": "http://proxy.example.com:3128",
        "HTTPS_PROXY": "http://proxy.example.com:3128",
    }
    assert (request.context / "ca.pem").read_text() == "a certificate"
    build, final = (request.context / "Dockerfile").read_text().split("\nFROM ")[-2:]
    assert "ca.pem" in build
    assert "ca.pem" not in final
    assert "PIP_" not in final


def test_a_bundle_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageUnavailable, match="nowhere"):
        made(tmp_path, PipSettings(cert=str(tmp_path / "nowhere.pem")))


@pytest.mark.parametrize(
    "settings",
    [WITH_SECRET, PipSettings(proxy=f"http://deploy:{SECRET}@proxy.example.com:3128")],
    ids=["index", "proxy"],
)
def test_credentials_go_into_a_build_secret_or_nowhere(tmp_path: Path, settings: PipSettings) -> None:
    request = made(tmp_path, settings)
    assert SECRET not in everything_in(request.context)
    assert SECRET not in repr(request)
    ((name, path),) = request.secrets
    assert path.stat().st_mode & 0o777 == 0o600
    assert not path.is_relative_to(request.context)
    assert SECRET in path.read_text()
    assert f"--mount=type=secret,id={name}," in (request.context / "Dockerfile").read_text()
    with pytest.raises(Refused) as caught:
        made(tmp_path / "legacy", settings, secrets_ok=False)
    assert SECRET not in caught.value.message + caught.value.hint
    assert not (tmp_path / "legacy").exists()


def test_a_line_break_in_an_address_begins_no_key(tmp_path: Path) -> None:
    request = made(tmp_path, PipSettings(index_url=f"https://u:{SECRET}@packages.example.com/\ntrusted-host = evil"))
    assert request.secrets[0][1].read_text().count("\n") == 2


@pytest.mark.parametrize("base", ["", "a b", "--privileged", "base:1\nRUN true", "${HOME}", "base:1 AS x"])
def test_a_base_that_is_no_reference_is_refused(tmp_path: Path, base: str) -> None:
    with pytest.raises(Refused):
        made(tmp_path, base=base)


@pytest.mark.parametrize("base", [DEFAULT_BASE, "localhost/base:1", "registry.example.com:5000/a/b@sha256:" + "0" * 64])
def test_a_base_stands_where_the_engine_reads_it(base: str) -> None:
    text = dockerfile(base=base, cert=False, secret=False)
    assert f"ARG BASE={base}\n" in text
    assert re.findall(r"^FROM (.*)$", text, re.MULTILINE) == ["${BASE} AS build", "${BASE}"]


def test_the_image_runs_as_nobody_and_stops_as_devpi_does() -> None:
    final = dockerfile(base="base:1", cert=True, secret=True).split("\nFROM ")[-1]
    assert "USER 3141:3141" in final
    assert "STOPSIGNAL SIGINT" in final
    before = final.partition("\nUSER ")[0]
    assert before.count("\nRUN ") == final.count("\nRUN ")
    assert "nginx-light" in before


def test_the_digest_names_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(tmp_path / "one", base="base:1").labels == ((LABEL_BUILD, build_digest("base:1")),)
    pinned = f"base@sha256:{'0' * 64}"
    found = made(tmp_path / "three", base=pinned, found_base=pinned)
    assert found.labels == ((LABEL_BUILD, build_digest(pinned)), (LABEL_BASE, pinned))
    assert f"ARG BASE={pinned}\n" in (found.context / "Dockerfile").read_text()
    assert made(tmp_path / "two", base=DEFAULT_BASE).labels == ((LABEL_BUILD, build_digest("")),)
    # What pip needs on this host changes nothing in the image.
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    assert made(tmp_path / "three", PipSettings(cert=str(bundle), timeout=3), base="base:1").labels[0][
        1
    ] == build_digest("base:1")
    before = build_digest("base:1")
    assert build_digest("base:2") != before
    changed = tmp_path / "changed.py"
    changed.write_text("")
    sources = (*image._sources(), ("deployer/server/changed.py", changed))
    monkeypatch.setattr(image, "_sources", lambda: sources)
    assert build_digest("base:1") != before


def test_every_wheel_is_locked_by_hash_and_no_host_is_named() -> None:
    for name in (image.BUILD_LOCK, *image.LOCKS.values()):
        text = (templates_dir() / "image" / name).read_text()
        requirements = [entry for entry in re.split(r"\n(?=\S)", text.strip()) if not entry.startswith("#")]
        assert len(requirements) >= 3
        for requirement in requirements:
            assert re.match(r"[a-z0-9-]+==\S+", requirement), requirement
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", requirement), requirement
        assert "://" not in text
        assert "index" not in text
    for major in image.LOCKS:
        assert reference(major).endswith(":" + image.server_version(major))
        assert image.server_version(major).startswith(f"{major}.")


def test_the_default_base_is_pinned_and_names_no_registry() -> None:
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", DEFAULT_BASE)
