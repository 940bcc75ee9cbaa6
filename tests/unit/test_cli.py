"""The command line's edges: what it prints, what it returns, and how it fails."""

from __future__ import annotations

import importlib
import io
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.cli import COMMANDS, addressed, execute, main
from deployer.commands import Overrides, overrides
from deployer.errors import DeployerError, Locked, NotReadyError, ProfileError, Refused
from deployer.secrets import BLANK, Secret, generate, mask
from deployer.ui.output import UI, Result
from tests.forked import forked


@pytest.fixture(scope="module", autouse=True)
def all_is_imported() -> None:
    """Once for all of the children in which a command line runs."""
    importlib.import_module("tests.preloaded")


def command(tmp_path: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line of a user without any container engine and without a deployment."""
    kept = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/nosock"}
    return forked(main, words=("deployer", *words), env={**kept, **env})


# Every verb, where there is nothing

WORDS = {
    "up": "--engine docker",
    "install-service": "--engine docker",
    "image build": "--engine docker",
    "image remove": "--engine docker",
    "move": "--data cache",
    "exec": "-- true",
    "backup create": "--directory /nonexistent/backups",
    "backup list": "--directory /nonexistent/backups",
    "backup fetch": "--directory /nonexistent/backups --remote /nonexistent/repository --remote-password env:NONE",
    "backup verify": "--directory /nonexistent/backups",
    "backup restore": "--directory /nonexistent/backups",
    "backup prune": "--directory /nonexistent/backups",
    "user create": "dev",
    "user modify": "dev --email dev@example.com",
    "user delete": "dev",
    "cluster scale": "2",
    "cluster promote": "1",
    "cluster renew": "1",
    "index accept": "root/dev",
    "index show": "root/dev",
    "index create": "root/dev",
    "index modify": "root/dev title=x",
    "index delete": "root/dev",
    "mirror create": "root/pypi http://127.0.0.1:9/simple/",
    "mirror modify": "root/pypi title=x",
    "mirror delete": "root/pypi",
    "package list": "--index root/dev",
    "package show": "demo --index root/dev",
    "cache show": "demo",
    "cache prune": "--project demo",
    "package upload": "demo-1.0.tar.gz --index root/dev",
    "why": "demo",
    "package download": "demo==1.0 --index root/dev",
    "package push": "demo==1.0 root/prod --index root/dev",
    "package remove": "demo==1.0 --index root/dev",
    "adopt": "wheels --index root/dev",
    "bundle create": "air.bundle",
    "bundle inspect": "air.bundle",
    "bundle load": "air.bundle",
    "bundle manifest": "have.json",
    "cache save": "saved",
    "cache restore": "saved",
    "token create": "dev --index root/dev",
    "token list": "dev",
    "token revoke": "dev abc",
    "build": ".",
}
"""What a verb needs to be understood. An engine is named where this host's own would be taken into use."""
CODES = {
    "cluster scale": (11,),  # the profile ci is for one server
    "up": (4,),
    "plan": (0, 10),
    "down": (0,),
    "status": (6,),
    "doctor": (0, 6, 9),
    "render": (0,),
    "bundle inspect": (2,),
    "bundle load": (2,),
    "profiles": (0,),
    "clients list": (0,),
    "clients undo": (0,),
    "clients logout": (0,),
    "token exchange": (2,),  # no server is named
    "locks check": (2,),  # there is no such file
    "locks repair": (2,),
    "install-service": (4,),
    "backup list": (0,),
    "backup fetch": (3, 5),
    "image build": (4,),
    "image remove": (4,),
    "warm": (2,),  # no file is named
    "offline check": (2,),
    "package upload": (2,),  # there is no such file
    "plugins lock": (2,),  # the profile names none
    "secret set": (2,),  # no password on stdin
}
"""Exit codes; of a verb that is not here: there is no deployment (5)."""


def alone(verb: str, tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A verb where nothing was deployed."""
    return command(tmp_path, *verb.split(), *more, "--profile", "ci", *WORDS.get(verb, "").split())


@pytest.mark.parametrize("verb", COMMANDS)
def test_one_envelope_whatever_happens(verb: str, tmp_path: Path) -> None:
    done = alone(verb, tmp_path, "--json")
    envelope = json.loads(done.stdout)
    assert set(envelope) == {"schema", "command", "ok", "data", "warnings", "error"}
    assert (envelope["schema"], envelope["command"]) == (1, verb)
    assert envelope["ok"] is (done.returncode == 0) is (envelope["error"] is None)
    assert done.returncode in CODES.get(verb, (5,)), done.stdout
    assert done.stderr == ""
    if envelope["error"]:
        assert set(envelope["error"]) - {"details"} == {"code", "message", "hint", "retryable"}
        assert "\n" not in envelope["error"]["message"] + envelope["error"]["hint"]


@pytest.mark.parametrize("verb", COMMANDS)
def test_data_and_talk_are_apart(verb: str, tmp_path: Path) -> None:
    done = alone(verb, tmp_path)
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "error " not in done.stdout
    if done.returncode:
        assert sum(line.startswith("error ") for line in done.stderr.splitlines()) == 1
        assert sum(line.startswith("hint ") for line in done.stderr.splitlines()) == 1
        assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"] == []


def test_words_and_codes_are_of_verbs_that_there_are() -> None:
    assert set(WORDS) | set(CODES) <= set(COMMANDS)


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_explains_itself(verb: str, tmp_path: Path) -> None:
    done = command(tmp_path, *verb.split(), "--help")
    assert done.returncode == 0
    assert COMMANDS[verb][1].rstrip(".") in " ".join(done.stdout.split())
    for option in ("--profile", "--name", "--json", "--quiet", "--debug"):
        assert f"{option}" in done.stdout
        assert f"DEPLOYER_{option[2:].upper()}" in done.stdout


def test_the_list_of_commands_fits_a_terminal(tmp_path: Path) -> None:
    lines = command(tmp_path, "--help").stdout.splitlines()[1:]
    assert [line for line in lines if line.endswith("...")] == []


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("up", "--nonsense"),
        ("up", "--port", "many"),
        ("up", "--port", "70000"),
        ("up", "--timeout", "0"),
        ("status", "--name", "../../etc"),
        ("status", "--name", ""),
        ("status", "--name", "clients"),
        ("status", "--name", "x" * 64),
        ("status", "--engine", "dockr"),
        ("down", "--engine", "../x"),
        ("image", "remove", "--engine", "dockr"),
        ("exec", "--index", "dev", "--", "true"),
        ("exec",),
        ("index", "list", "--url", "packages.example.com"),
        ("user", "list", "--url", "ftp://packages.example.com/"),
        ("configure-pip", "--url", "nonsense"),
        ("configure-pip", "--index", "root/../../etc"),
        ("secret", "set", "../../other"),
        ("secret", "show", ""),
        ("secret", "nonsense"),
        ("up", "--token", "s3cr3t"),
    ],
    ids=" ".join,
)
def test_usage(words: tuple[str, ...], tmp_path: Path) -> None:
    done = command(tmp_path, *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "s3cr3t" not in done.stdout
    told = command(tmp_path, *words, "--json")
    assert (told.returncode, told.stderr) == (2, "")
    error = json.loads(told.stdout)["error"]
    assert error["code"] == "usage"
    assert error["hint"].startswith("deployer ")
    assert error["message"] in done.stderr or "'--name'" in error["message"]


def test_no_engine_in_particular_is_whichever_there_is(tmp_path: Path) -> None:
    for env in ({}, {"DEPLOYER_ENGINE": "auto"}):
        assert command(tmp_path, "status", **env).returncode == 6


def test_a_command_that_is_advised_is_about_the_same_deployment(tmp_path: Path) -> None:
    assert "hint      deployer up --name team\n" in command(tmp_path, "status", "--name", "team").stderr
    told = json.loads(command(tmp_path, "logs", "--json", DEPLOYER_NAME="team").stdout)
    assert told["error"]["hint"] == "deployer up --name team"
    assert command(tmp_path, "status").stderr.endswith("hint      deployer up\n")


@pytest.mark.parametrize(
    ("text", "addressed_text"),
    [
        (
            "run deployer up, or deployer logs for the cause",
            "run deployer up --name a, or deployer logs --name a for the cause",
        ),
        (
            "deployer index apply; deployer secret set root",
            "deployer index apply --name a; deployer secret set --name a root",
        ),
        ("deployer exec -- pip install x", "deployer exec --name a -- pip install x"),
        ("deployer configure-pip --undo", "deployer configure-pip --name a --undo"),
        ("deployer image build, deployer profiles", "deployer image build, deployer profiles"),
        ("deployer up --help; deployer up --name b", "deployer up --help; deployer up --name b"),
        ("deployer keeps its records there", "deployer keeps its records there"),
    ],
)
def test_the_name_goes_where_a_verb_ends(text: str, addressed_text: str) -> None:
    assert addressed(text, name="a") == addressed_text
    assert addressed(text, name="devpi") == text


def test_usage_that_only_the_command_can_judge(tmp_path: Path) -> None:
    for words in (("logs", "--grep", "("), ("render", "--format", "x"), ("configure-pip", "--scope", "x")):
        done = command(tmp_path, *words)
        assert done.returncode == 2
        assert f"hint      deployer {words[0]} --help" in done.stderr


def test_the_variable_for_json_counts_where_the_line_is_wrong(tmp_path: Path) -> None:
    done = command(tmp_path, "status", "--nonsense", DEPLOYER_JSON="1")
    assert json.loads(done.stdout)["command"] == "status"


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    done = command(tmp_path, "up", "--profile", "vpm")
    assert done.returncode == 3
    assert "vpn" in done.stderr


def test_every_option_has_a_variable(tmp_path: Path) -> None:
    done = command(
        tmp_path,
        *("render", "--format", "argv"),
        DEPLOYER_ENGINE="podman",
        DEPLOYER_NETWORK="host",
        DEPLOYER_PORT="4567",
        DEPLOYER_NAME="other",
        DEPLOYER_IMAGE="registry.example.com/devpi:1",
        DEPLOYER_SET="server.memory=300m",
    )
    assert done.returncode == 0, done.stderr
    for word in ("podman", "--name=other", "--network=host", "--memory=300m", "registry.example.com/devpi:1"):
        assert word in done.stdout.split()


def test_the_command_line_wins_over_the_variable(tmp_path: Path) -> None:
    done = command(tmp_path, "render", "--name", "mine", "--engine", "docker", DEPLOYER_NAME="other")
    assert "--name=mine" in done.stdout


def test_completion_knows_every_option() -> None:
    env = {**os.environ, "_DEPLOYER_COMPLETE": "complete_bash", "COMP_WORDS": "deployer status --ch", "COMP_CWORD": "2"}
    script = Path(sys.executable).with_name("deployer")
    done = subprocess.run([script], env=env, capture_output=True, text=True, check=False, timeout=300)
    assert "--check" in done.stdout, done.stderr


# One command of our own


@dataclass(frozen=True)
class Options:
    name: str = "devpi"
    json: bool = False
    quiet: bool = False
    debug: bool = False


def fails(error: BaseException):  # type: ignore[no-untyped-def]
    def run(options: Options, ui: UI) -> Result:
        ui.warn("careful")
        raise error

    return run


@pytest.mark.parametrize("kind", [DeployerError, ProfileError, NotReadyError, Refused, Locked])
def test_the_code_is_that_of_the_error(kind: type[DeployerError], capsys: pytest.CaptureFixture[str]) -> None:
    error = kind("it is so", hint="do this", details=("line one",))
    assert execute("up", fails(error), Options(json=True)) == kind.exit_code
    envelope = json.loads(capsys.readouterr().out)
    assert envelope["warnings"] == ["careful"]
    assert envelope["error"] == {
        "code": kind.code,
        "message": "it is so",
        "hint": "do this",
        "retryable": kind.retryable,
        "details": ["line one"],
    }


def test_a_defect_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute("up", fails(ZeroDivisionError("two\nlines")), Options()) == 1
    told = capsys.readouterr().err
    assert "ZeroDivisionError: two" in told
    assert "--debug" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), NotReadyError("x", hint="y")], ids=repr)
@pytest.mark.parametrize("json", [False, True])
def test_debug_shows_where_and_changes_nothing_else(
    error: Exception, json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = execute("up", fails(error), Options(json=json)), capsys.readouterr()
    traced = execute("up", fails(error), Options(json=json, debug=True)), capsys.readouterr()
    assert (traced[0], traced[1].out) == (plain[0], plain[1].out)
    assert "Traceback" in traced[1].err
    assert "in fails" not in plain[1].err
    assert traced[1].err.endswith(plain[1].err.replace("warning   careful\n", ""))


def test_an_interrupt_has_a_code_of_its_own() -> None:
    assert execute("up", fails(KeyboardInterrupt()), Options()) == 130


def test_no_secret_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    secret = generate().reveal()
    error = NotReadyError(f"no: {secret}", hint=secret, details=(f"https://user:{secret}@example.com",))
    for options in (Options(), Options(json=True), Options(debug=True)):
        execute("up", fails(error), options)
        printed = capsys.readouterr()
        assert secret not in printed.out + printed.err
        assert BLANK in printed.out + printed.err


# The user interface


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, **env: str) -> str:
    for key in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(key, raising=False)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    ui = UI(out=io.StringIO(), err=stream)
    ui.step("server", "created")
    with ui.working("image", "building") as progress:
        progress("one")
        progress("two")
    ui.warn("careful")
    return stream.getvalue()


def test_color_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[1m" in said(monkeypatch, Terminal(), TERM="xterm")
    assert "\x1b[1m" not in said(monkeypatch, Terminal(), TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in said(monkeypatch, Terminal(), TERM="dumb")
    assert "\x1b" not in said(monkeypatch, io.StringIO(), TERM="xterm")


def test_plain_lines_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = said(monkeypatch, io.StringIO()).splitlines()
    assert lines == ["server    created", "image     building …", "warning   careful"]


@pytest.mark.parametrize("silent", [{"json": True}, {"quiet": True}])
def test_silence(silent: dict[str, bool]) -> None:
    err, out = io.StringIO(), io.StringIO()
    ui = UI(out=out, err=err, **silent)
    ui.step("server", "created")
    ui.note("more")
    ui.warn("careful")
    ui.finish("up", Result(data={"a": 1}, text="the result"))
    assert err.getvalue() == ""
    assert json.loads(out.getvalue())["data"] == {"a": 1} if silent.get("json") else out.getvalue() == "the result\n"


def test_a_terminal_that_knows_few_characters() -> None:
    err = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    UI(out=io.StringIO(), err=err).step("data", "/päckchen · …")
    err.flush()
    assert b"p?ckchen" in err.buffer.getvalue()  # type: ignore[attr-defined]


# Secrets


@given(st.text(min_size=6, max_size=40), st.text(max_size=200))
def test_a_masked_text_never_holds_the_secret(value: str, text: str) -> None:
    Secret(value)
    masked = mask(text + value + text)
    assert value not in masked.replace(BLANK, "\0") or value in BLANK


@given(st.from_regex(r"[a-z]{1,8}://[^/\s'\"@]{1,20}:[^/\s'\"@]{1,20}@", fullmatch=True))
def test_credentials_of_an_address_are_blanked(address: str) -> None:
    user, _, rest = address.partition("://")[2].partition(":")
    assert f"{user}:{rest}" not in mask(f"see {address}example.com/x")


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret("correct horse battery")
    assert "horse" not in f"{secret} {secret!r} {[secret]}"
    assert secret == Secret("correct horse battery")
    assert secret != Secret("another")
    assert len({generate().reveal() for _ in range(20)}) == 20


def test_port_zero_is_a_choice() -> None:
    given = {(override.key, override.value) for override in overrides(Overrides(port=0))}
    assert ("network.port", 0) in given
    assert overrides(Overrides(port=None)) == ()


# exec


def deployed_home(tmp_path: Path, port: int) -> None:
    """The record of an `up` in the home of :func:`command`, whose server would be at ``port``."""
    from deployer.deployment.record import Applied

    record = Applied(
        profile_name="default",
        profile_ref="default",
        engine="process",
        simple_url=f"http://127.0.0.1:{port}/r/d/+simple/",
    )
    where = tmp_path / ".local/state/deployer/devpi"
    where.mkdir(parents=True, mode=0o700)
    (where / "applied.json").write_text(json.dumps({"schema": 1, **vars(record)}))


@pytest.mark.parametrize(
    ("program", "code", "kind"),
    [
        ("nosuch", 127, "not-found"),
        ("./nosuch", 127, "not-found"),
        ("./", 126, "not-executable"),
        ("./plain", 126, "not-executable"),
        ("./broken", 126, "not-executable"),
        ("./plain/below", 126, "not-executable"),
        ("./three", 3, ""),
    ],
)
def test_exec_ends_as_a_shell_does(
    program: str, code: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = socket.create_server(("127.0.0.1", 0))
    deployed_home(tmp_path, server.getsockname()[1])
    for name, text, mode in (("plain", "x", 0o644), ("broken", "x", 0o755), ("three", "#!/bin/sh\nexit 3\n", 0o755)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    with server:
        done = command(tmp_path, "exec", "--json", "--", program)
    assert done.returncode == code
    if kind:
        assert json.loads(done.stdout)["error"]["code"] == kind


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("form", ["sh", "argv", "systemd"])
def test_a_process_is_rendered_for_any_environment(version: str, form: str, tmp_path: Path) -> None:
    words = ("--engine", "process", "--set", f"server.version={version}", "--format", form)
    done = command(tmp_path, "render", *words)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("chosen", ["/dev/null", "other.conf"])
def test_a_file_that_pip_does_not_read_is_not_written(chosen: str, tmp_path: Path) -> None:
    (tmp_path / "other.conf").touch()
    url = ("--url", "http://127.0.0.1:9/root/dev/+simple/")
    done = command(tmp_path, "configure-pip", *url, PIP_CONFIG_FILE=str(tmp_path / chosen))
    assert done.returncode == 8
    assert "unset PIP_CONFIG_FILE" in done.stderr
    assert not (tmp_path / ".config").exists()
    assert command(tmp_path, "configure-pip", *url).returncode == 0
    assert (tmp_path / ".config/pip/pip.conf").exists()


def test_files_of_other_tools_are_printed_without_an_engine(tmp_path: Path) -> None:
    for form, mark in (("compose", "services:"), ("dockerfile", "ARG PIP_INDEX_URL="), ("devcontainer", "{")):
        done = command(tmp_path, "render", "--engine", "docker", "--format", form)
        assert done.returncode == 0, done.stderr
        assert any(line.startswith(mark) for line in done.stdout.splitlines())
    away = command(
        tmp_path, "render", "--engine", "docker", "--bind", "192.0.2.1", "--expose", "--format", "devcontainer"
    )
    assert "runArgs" not in json.loads(away.stdout), "an address needs no network of the host"
    refused = command(tmp_path, "render", "--engine", "process", "--format", "compose")
    assert (refused.returncode, "--engine docker" in refused.stderr) == (2, True)
