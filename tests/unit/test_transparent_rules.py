"""What a transparent command decides: which requests the index answers, its variables, and what is refused."""

from __future__ import annotations

import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployer.clients.client import Account
from deployer.clients.transparent import authority, environment, roots, settings
from deployer.clients.transparent.environment import Chain
from deployer.clients.transparent.routes import Host, Mirror, Target, host_of, is_exempt, targets
from deployer.clients.transparent.settings import Setting, Settings
from deployer.clients.transparent.tunnel import Plan
from deployer.clients.variables import Changes
from deployer.errors import ClientFileError, NotReadyError, Refused
from deployer.operations import transparent
from deployer.operations.transparent import why_not
from deployer.protocol import Mirrored
from tests.integration.ci_runner import variables as variables_of_github

INDEX = "https://index.example.com/simple/"
PUBLIC = Mirror(view="/root/pypi/+canonical", url=INDEX, files=("files.example.com", "cdn.example.com:8443"))
TEAM = Mirror(
    view="/root/team/+canonical", url="https://files.example.com:444/own/+simple/", files=("files.example.com",)
)
SERVER = "http://127.0.0.1:3141"
NOTHING = Settings(indexes={}, extra=(), proxies=(), roots=())
AT: Host = ("index.example.com", 443)


# Routes


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/simple/demo/", "/root/pypi/+canonical/simple/demo/"),
        ("/simple/Demo", "/root/pypi/+canonical/simple/Demo"),
        ("/simple/demo/?x=1", "/root/pypi/+canonical/simple/demo/"),
        ("/pypi/demo/json", "/root/pypi/+canonical/pypi/demo/json"),
        ("/pypi/demo/1.0+x/json", "/root/pypi/+canonical/pypi/demo/1.0+x/json"),
        ("/packages/ab/demo-1.0.tar.gz", "/root/pypi/+canonical/hosts/index.example.com/packages/ab/demo-1.0.tar.gz"),
        (
            "/demo-1.0-py3-none-any.whl.metadata?y",
            "/root/pypi/+canonical/hosts/index.example.com/demo-1.0-py3-none-any.whl.metadata",
        ),
        ("/simple/", ""),
        ("/simple/demo/more/", ""),
        ("/", ""),
        ("/pypi", ""),
        ("/legacy/", ""),
        ("/integrity/demo/1.0/demo-1.0.tar.gz/provenance", ""),
    ],
)
def test_requests_that_the_index_answers(path: str, found: str) -> None:
    assert [target.path for target in targets([PUBLIC], AT, path)] == ([found] if found else [])


def test_a_host_of_two_mirrors_has_the_files_of_both() -> None:
    path = "/ab/demo-1.0.tar.gz"
    found = targets([TEAM, PUBLIC], ("files.example.com", 443), path)
    assert found == (
        Target(f"/root/team/+canonical/hosts/files.example.com{path}", True),
        Target(f"/root/pypi/+canonical/hosts/files.example.com{path}", True),
    )
    assert targets([TEAM, PUBLIC], ("files.example.com", 444), "/own/+simple/demo/") == (
        Target("/root/team/+canonical/simple/demo/", False),
    )
    assert targets([TEAM, PUBLIC], ("files.example.com", 80), path) == ()
    assert targets([TEAM, PUBLIC], ("other.example.com", 443), path) == ()
    # A mirror whose address has another form has no JSON API.
    assert targets([TEAM], ("files.example.com", 444), "/own/pypi/demo/json") == ()


def test_hosts() -> None:
    assert host_of("Index.Example.com") == AT == host_of("user:word@index.example.com:443")
    assert host_of("index.example.com:8443") == ("index.example.com", 8443)
    assert PUBLIC.hosts == {AT, ("files.example.com", 443), ("cdn.example.com", 8443)}


@pytest.mark.parametrize(
    ("no_proxy", "exempt"),
    [
        ("index.example.com", True),
        ("localhost, .example.com", True),
        ("*.example.com", True),
        ("example.com", True),
        ("EXAMPLE.com:443", True),
        ("example.com:80", False),
        ("ample.com", False),
        ("x.index.example.com", False),
        ("*", True),
        ("", False),
        ("10.0.0.0/8", False),
    ],
)
def test_hosts_without_a_proxy(no_proxy: str, exempt: bool) -> None:
    assert is_exempt(no_proxy, *AT) is exempt


def test_addresses_without_a_proxy() -> None:
    assert is_exempt("10.0.0.0/8", "10.1.2.3") and is_exempt("::1", "[::1]")
    assert not is_exempt("10.0.0.0/8", "11.1.2.3") and not is_exempt("10.0.0.0/x", "10.0.0.1")


# Variables


def proxied(env: dict[str, str], found: Settings = NOTHING) -> Changes:
    bundles = {roots.OPENSSL: Path("/b/one.pem"), roots.REQUESTS[0]: Path("/b/two.pem")}
    proxy = "http://deployer:word@127.0.0.1:4711"
    return environment.proxied(env, found, mirrors=[PUBLIC], proxy=proxy, bundles=bundles)


def test_every_spelling_leads_through_the_tunnel() -> None:
    env = proxied({"https_proxy": "http://corp:3128", "SSL_CERT_FILE": "/x"}).applied(
        {"https_proxy": "x", "PATH": "/bin"}
    )
    proxy = "http://deployer:word@127.0.0.1:4711"
    assert (env["https_proxy"], env["HTTPS_PROXY"], env["PATH"]) == (proxy, proxy, "/bin")
    assert env["SSL_CERT_FILE"] == "/b/one.pem"
    assert {env[name] for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")} == {"/b/two.pem"}
    assert env["NO_PROXY"] == env["no_proxy"] == ""
    assert "PIP_PROXY" not in env
    assert proxied({"PIP_PROXY": "http://x:1"}).values["PIP_PROXY"] == proxy
    own = Settings(indexes={}, extra=(), proxies=(), roots=(), pip_proxy="http://corp:3128")
    assert proxied({}, own).values["PIP_PROXY"] == proxy


def test_no_proxy_keeps_what_does_not_name_an_upstream() -> None:
    for name in ("NO_PROXY", "no_proxy"):
        env = proxied({name: "localhost,index.example.com, .example.com 10.0.0.0/8,example.org"}).values
        assert env["NO_PROXY"] == env["no_proxy"] == "localhost,10.0.0.0/8,example.org"


def test_no_proxy_for_all_hosts_means_none_for_http_either() -> None:
    changes = proxied({"NO_PROXY": "*", "http_proxy": "http://corp:3128"})
    env = changes.applied({"NO_PROXY": "*", "http_proxy": "http://corp:3128", "HTTP_PROXY": "x"})
    assert not {"NO_PROXY", "no_proxy", "http_proxy", "HTTP_PROXY"} & env.keys()
    assert "https_proxy" in env


def test_variables_for_a_shell_are_quoted() -> None:
    changes = Changes(values={"A": "it's $x"}, removed=("B",))
    done = subprocess.run(
        ["sh", "-c", f'B=1\n{changes.for_shell()}\nprintf %s "$A${{B-gone}}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "it's $xgone"


# Proxies that were there


@pytest.mark.parametrize(
    ("env", "pip", "found"),
    [
        ({}, "", Chain()),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, "", Chain(https="http://b:2")),
        ({"HTTPS_PROXY": "corp:3128"}, "http://pip:1", Chain(https="http://corp:3128", http="http://pip:1")),
        ({"ALL_PROXY": "http://a:1", "no_proxy": "x"}, "", Chain(https="http://a:1", http="http://a:1", no_proxy="x")),
        ({"http_proxy": "http://a:1"}, "", Chain(http="http://a:1")),
    ],
)
def test_proxies_that_are_chained_to(env: dict[str, str], pip: str, found: Chain) -> None:
    assert environment.chain(env, Settings(indexes={}, extra=(), proxies=(), roots=(), pip_proxy=pip)) == found


@pytest.mark.parametrize("proxy", ["socks5://a:1", "https://me:secret@a:1", "http://[x"])
def test_proxies_that_are_refused(proxy: str) -> None:
    with pytest.raises(Refused) as refused:
        environment.chain({"https_proxy": proxy}, NOTHING)
    assert "secret" not in refused.value.message and refused.value.hint


# Indexes


def indexes(default: str = INDEX, **found: Setting) -> Changes:
    given = Settings(indexes=found, extra=(), proxies=(), roots=())
    return environment.indexes(given, mirrors=[PUBLIC], server=SERVER, default=default)


def test_our_own_address_is_replaced_by_the_upstreams() -> None:
    ours = "http://localhost:3141/root/dev/+simple/"
    in_files = {name: Setting(ours, "a file") for name in ("pip", "uv", "pdm", "poetry")}
    url = INDEX.rstrip("/")
    expected = {"PIP_INDEX_URL": url, "UV_DEFAULT_INDEX": url, "PDM_PYPI_URL": url, "POETRY_PYPI_MIRROR_URL": url}
    assert indexes(**in_files).values == expected
    # A variable of the clients' default needs no other value; of another index it does.
    preset = indexes(uv=Setting(ours, "UV_INDEX_URL", variable=True))
    assert preset.values == {} and set(preset.removed) == {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}
    other = indexes("https://else.example.org/simple/", uv=Setting(f"own={ours}", "UV_DEFAULT_INDEX", variable=True))
    assert other.values == {"UV_DEFAULT_INDEX": url}


def test_an_upstream_is_left_alone_and_anything_else_is_refused() -> None:
    assert indexes(pip=Setting(INDEX, "pip.conf")).values == {}
    assert indexes(uv=Setting("https://else.example.org/simple/", "pyproject.toml", project=True)).values == {}
    for address in ("https://me:secret@else.example.org/simple/", "http://index.example.com/simple/", "nonsense"):
        with pytest.raises(Refused) as refused:
            indexes(pip=Setting(address, "PIP_INDEX_URL", variable=True))
        assert refused.value.message.startswith("PIP_INDEX_URL (") and "secret" not in refused.value.message


def test_a_default_index_that_is_not_mirrored_is_named() -> None:
    assert "else.example.org" in indexes("https://else.example.org/simple/").warnings[0]
    assert not indexes().warnings


def test_further_indexes_are_named() -> None:
    extra = (
        Setting("own=https://else.example.org/simple/ https://index.example.com/simple", "UV_INDEX", variable=True),
        Setting(f"{SERVER}/root/dev/+simple/", "PIP_EXTRA_INDEX_URL", variable=True),
    )
    given = Settings(indexes={}, extra=extra, proxies=(), roots=())
    found = environment.indexes(given, mirrors=[PUBLIC], server=SERVER, default=INDEX).warnings
    assert len(found) == 2
    assert found[0].startswith("UV_INDEX (https://else.example.org/simple/)") and "the index itself" in found[1]


# What clients are configured to do


def read(home: Path, directory: Path | None = None, **env: str) -> Settings:
    return settings.read(Account(env=env, home=home, state=home / "state", platform="linux"), directory or home / "in")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_settings_of_files(tmp_path: Path) -> None:
    config, project = tmp_path / ".config", tmp_path / "project"
    env = {"XDG_CONFIG_DIRS": str(tmp_path / "none")}
    write(config / "pip/pip.conf", "[global]\nindex-url = https://a/\nproxy = http://p:1\ncert = /c\n")
    write(config / "uv/uv.toml", 'http-proxy = "http://p:2"\n[[index]]\nurl = "https://b/"\ndefault = true\n')
    write(config / "pdm/config.toml", '"pypi.url" = "https://c/"\n[pypi]\nca_certs = "/ca"\n')
    write(
        config / "pypoetry/config.toml",
        '[certificates.own]\ncert = "/own"\n[plugins.pypi_mirror]\nurl = "https://d/"\n',
    )
    write(project / "pyproject.toml", '[tool.uv]\nno-proxy = ["x"]\n')
    found = read(tmp_path, project, **env)
    assert {client: one.value for client, one in found.indexes.items()} == {
        "pip": "https://a/",
        "uv": "https://b/",
        "pdm": "https://c/",
        "poetry": "https://d/",
    }
    assert (found.pip_proxy, found.pip_cert) == ("http://p:1", "/c")
    assert [one.source for one in found.proxies] == [
        f"no-proxy of {project}/pyproject.toml",
        f"http-proxy of {config}/uv/uv.toml",
    ]
    assert [one.value for one in found.roots] == ["/ca", "/own"]
    with pytest.raises(Refused, match="no-proxy of"):
        environment.refuse_files(found)


def test_settings_of_variables_come_first(tmp_path: Path) -> None:
    write(tmp_path / ".config/uv/uv.toml", 'index-url = "https://b/"\nhttps-proxy = "http://p"\n')
    found = read(tmp_path, UV_INDEX_URL="https://v/", PDM_PYPI_URL="https://w/", PIP_INDEX_URL="https://x/")
    assert {client: (one.value, one.variable) for client, one in found.indexes.items()} == {
        "pip": ("https://x/", True),
        "uv": ("https://v/", True),
        "pdm": ("https://w/", True),
    }
    assert read(tmp_path, UV_NO_CONFIG="1").proxies == ()
    write(tmp_path / "own.toml", 'no-proxy = "x"\n')
    assert [one.value for one in read(tmp_path, UV_CONFIG_FILE=str(tmp_path / "own.toml")).proxies] == ["x"]


def test_the_projects_index_is_the_projects(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", '[[tool.uv.index]]\nurl = "https://b/"\ndefault = true\n')
    assert read(tmp_path, tmp_path / "below/it").indexes["uv"].project
    write(tmp_path / "uv.toml", "not toml")
    assert read(tmp_path, tmp_path / "below/it").indexes["uv"].project


# Trust


def test_the_bundles_hold_what_each_client_trusted(tmp_path: Path) -> None:
    for name in ("one", "two", "pip"):
        write(tmp_path / name, f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n")
    write(tmp_path / "directory/three", "-----BEGIN CERTIFICATE-----\nthree\n-----END CERTIFICATE-----\n")
    system = roots.system()
    assert "-----BEGIN CERTIFICATE-----" in system
    found = roots.former({}, pip_cert="")
    assert found == {"SSL_CERT_FILE": system, "REQUESTS_CA_BUNDLE": system}
    env = {"SSL_CERT_FILE": str(tmp_path / "one"), "CURL_CA_BUNDLE": str(tmp_path / "directory")}
    found = roots.former(env, pip_cert=str(tmp_path / "pip"))
    assert "one" in found["SSL_CERT_FILE"] and "two" not in found["SSL_CERT_FILE"]
    assert "three" in found["REQUESTS_CA_BUNDLE"] and "\npip\n" in found["REQUESTS_CA_BUNDLE"]
    assert len(found["SSL_CERT_FILE"]) < 200  # a bundle that someone has chosen is not widened
    assert roots.former({"REQUESTS_CA_BUNDLE": str(tmp_path / "two"), **env}, pip_cert="")["REQUESTS_CA_BUNDLE"].count(
        "two"
    )
    with pytest.raises(ClientFileError, match="/nowhere"):
        roots.former({"SSL_CERT_FILE": "/nowhere"}, pip_cert="")


def test_a_certificate_is_kept_for_a_day_and_its_names(tmp_path: Path) -> None:
    place, now = tmp_path / "kept", datetime.now(UTC)
    first = authority.certificate(["b.example.com", "a.example.com"], directory=place, now=now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(first.chain, first.key)
    assert first.key.stat().st_mode & 0o777 == 0o600 and place.stat().st_mode & 0o777 == 0o700
    assert (
        authority.certificate(["a.example.com", "b.example.com"], directory=place, now=now + timedelta(hours=23))
        == first
    )
    other = authority.certificate(["a.example.com"], directory=place, now=now)
    renewed = authority.certificate(["a.example.com", "b.example.com"], directory=place, now=now + timedelta(hours=25))
    assert len({first.ca, other.ca, renewed.ca}) == 3
    # A shell may use a certificate as long as it is valid.
    assert first.ca.exists()
    authority.certificate(["a.example.com"], directory=place, now=now + timedelta(days=31))
    assert not first.ca.exists()
    # Half a directory, of a run that was killed, is not used.
    renewed.key.unlink()
    again = authority.certificate(["a.example.com", "b.example.com"], directory=place, now=now + timedelta(hours=26))
    assert again.key.exists() and again.ca != renewed.ca


# The server's answer, and the program


@pytest.mark.parametrize(
    ("url", "hosts", "why"),
    [
        ("https://index.example.com/simple/", ("files.example.com",), ""),
        ("http://index.example.com/simple/", ("files.example.com",), "no https"),
        ("https://10.0.0.1/simple/", ("files.example.com",), "address for a name"),
        ("https://index.example.com/simple/", (), "no page of it is known"),
    ],
)
def test_mirrors_that_can_be_transparent(url: str, hosts: tuple[str, ...], why: str) -> None:
    found = why_not(Mirrored(name="root/pypi", url=url, hosts=hosts))
    assert why in found and bool(why) == bool(found)


def test_what_a_server_says_is_not_trusted() -> None:
    one = {"name": "root/pypi", "url": INDEX, "hosts": ["files.example.com", "a b", 7, "x:99999999", "../x"]}
    assert Mirrored.parse({"mirrors": [one]}) == (Mirrored(name="root/pypi", url=INDEX, hosts=("files.example.com",)),)
    for answer in (
        None,
        [],
        {},
        {"mirrors": 1},
        {"mirrors": [1]},
        {"mirrors": [{**one, "name": "x"}]},
        {"mirrors": [{**one, "hosts": 1}]},
    ):
        assert Mirrored.parse(answer) is None


def test_the_tunnels_plan_survives_its_pipe() -> None:
    plan = Plan(
        server=SERVER, name="root/dev", mirrors=(PUBLIC, TEAM), certificate="c", key="k", roots="r", token="t", owner=1
    )
    found = Plan.parse(plan.encoded)
    assert found == plan._replace(mirrors=tuple(mirror._replace(files=list(mirror.files)) for mirror in (PUBLIC, TEAM)))
    assert found.mirrors[0].hosts == PUBLIC.hosts


def test_the_tunnel_needs_the_standard_library_alone() -> None:
    """It starts in milliseconds, in a Python without what is installed."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import deployer.clients.transparent.tunnel\n"
        "print(' '.join(sorted(name for name in sys.modules if name.startswith('deployer'))))\n"
        "assert not {'asyncio', 'dataclasses', 'http', 'email', 'subprocess'} & set(sys.modules), sys.modules"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "deployer",
        *(f"deployer.clients{name}" for name in ("", ".transparent", ".transparent.routes", ".transparent.tunnel")),
    ]


@pytest.mark.parametrize(
    ("program", "cause"),
    [("/nowhere/python", "No such file"), ("/bin/true", "no output")],
)
def test_a_tunnel_that_does_not_start_has_a_cause(monkeypatch: pytest.MonkeyPatch, program: str, cause: str) -> None:
    monkeypatch.setattr(sys, "executable", program)
    plan = Plan("http://127.0.0.1:9", "root/dev", (), "c", "k", "r", "secret-token", 1)
    with pytest.raises(NotReadyError, match="the tunnel did not start") as failed:
        transparent._launched(plan)
    assert cause in failed.value.message
    assert "secret-token" not in failed.value.message + failed.value.hint


def test_github_reads_every_value_as_it_is() -> None:
    values = {"A": "it's $HOME\n::add-mask::x", "B": "C<<D", "C": ""}
    told = Changes(values=values, removed=("NO_PROXY",)).for_github("end-of-value")
    assert variables_of_github(told) == {"NO_PROXY": "", **values}
