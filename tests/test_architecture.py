"""What holds of the repository as a whole: what a command may import, what documents promise, what stands nowhere."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.cli import COMMANDS
from deployer.commands.envelope import DATA
from tools import reference

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("docker", "httpx", "jinja2", "pydantic", "yaml", "rich", "devpi_server", "requests")
PAGES = tuple(sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")))
DOCUMENTS = tuple(sorted(path.name for path in ROOT.glob("*.md"))) + PAGES


def tracked(*patterns: str) -> list[Path]:
    """The files of the repository that match."""
    listed = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def imported(*words: str) -> set[str]:
    """The modules that one command line has imported when it ends."""
    code = "import sys, atexit; atexit.register(lambda: print('\\n' + ' '.join(sys.modules), file=sys.stderr)); "
    code += f"sys.argv = ['deployer', *{list(words)!r}]; from deployer.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("words", [("--help",), ("--version",)], ids=" ".join)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    modules = imported(*words)
    assert "typer" in modules
    assert modules.isdisjoint(HEAVY)
    assert modules.isdisjoint({"deployer.commands", "deployer.spec", "deployer.engines"})  # options of verbs


@pytest.mark.parametrize("words", [("up", "--help"), ("status", "--engine", "process")], ids=" ".join)
def test_quick_commands_import_little(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path))
    # Typer itself takes pydantic for the options of a command.
    assert imported(*words).isdisjoint(set(HEAVY) - {"pydantic"})


def code_blocks(path: Path) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    (command,) = [block.strip() for block in code_blocks(ROOT / "README.md") if "pytest" in block]
    assert command in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()


def test_the_readme_in_chinese_has_the_commands_of_the_english_one() -> None:
    english, chinese = (code_blocks(ROOT / name) for name in ("README.md", "README.zh-CN.md"))
    assert chinese == [block for block in english if "pytest" not in block]


def test_every_command_of_the_documents_exists() -> None:
    verbs = set(COMMANDS)
    groups = {verb.partition(" ")[0] for verb in verbs}
    told = set()
    for document in DOCUMENTS:
        for line in (line for block in code_blocks(ROOT / document) for line in block.splitlines()):
            for command in re.findall(r"(?:^|[;&(/] ?)deployer ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)", line):
                first, _, second = command.partition(" ")
                told.add(f"{first} {second}" if first in groups - verbs else first)
    assert {"up", "down", "configure-pip"} <= told
    assert told <= verbs


@pytest.mark.parametrize("verb", COMMANDS)
def test_what_the_list_says_is_what_the_command_says(verb: str) -> None:
    module, summary = COMMANDS[verb]
    told = importlib.import_module(f"deployer.commands.{module}").run.__doc__
    assert told.startswith(summary)
    assert len(summary) <= 62  # what an ordinary terminal shows of it


def test_what_data_holds_is_declared_for_every_command() -> None:
    assert set(DATA) == set(COMMANDS)


@pytest.mark.parametrize("page", reference.pages())
def test_pages_made_from_the_code_are_fresh(page: str) -> None:
    """``python -m tools.reference`` writes them."""
    assert (reference.PAGES / page).read_text(encoding="utf-8") == reference.pages()[page]


def leaves(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from leaves(value) if isinstance(value, list) else (value,)


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert sorted(f"docs/{page}" for page in leaves(nav)) == list(PAGES)


def anchors(path: Path) -> set[str]:
    """What a link can name in a page, as GitHub and the site make it of the titles."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        page = path.parent / target if target else path
        if "://" not in link and (not page.exists() or (anchor and anchor not in anchors(page))):
            broken.append(link)
    assert broken == []


def named_tests(text: str) -> Iterator[tuple[str, str]]:
    """Each ``file.py::test`` of a document; ``::test`` is of the file that was named last."""
    file = ""
    for named, test in re.findall(r"`(\w+\.py)?::(\w+)`", text):
        file = named or file
        yield file, test


def test_every_test_that_a_document_names_exists() -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    documents = [(ROOT / name).read_text(encoding="utf-8") for name in ("docs/reference/faults.md", "SECURITY.md")]
    named = [test for document in documents for test in named_tests(document)]
    assert len(named) > 80
    assert [f"{file}::{test}" for file, test in named if f"def {test}(" not in files.get(file, "")] == []


def test_every_fault_has_its_proof() -> None:
    rows = re.findall(r"^\| .+ \|$", (ROOT / "docs/reference/faults.md").read_text(encoding="utf-8"), re.MULTILINE)
    faults = [row for row in rows if not row.startswith("| fault |")]
    assert len(faults) > 60
    assert [row for row in faults if "::" not in row.split(" | ")[-1]] == []
    named = [proof for row in faults for proof in re.findall(r"`(\w*(?:\.py)?::\w+|\w+\.py)`", row.split(" | ")[-1])]
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    missing, file = [], ""
    for proof in named:
        file = proof.partition("::")[0] or file  # left out where it is that of the one before
        name = proof.partition("::")[2]
        if file not in sources or f"def {name}(" not in sources[file]:
            missing.append(proof)
    assert missing == []


@pytest.mark.parametrize("document", ["SECURITY.md", "docs/explanation/threat-model.md"])
def test_every_promise_of_security_has_its_test(document: str) -> None:
    """A row of a table with a column *test* names at least one, and each that is named exists."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    text = (ROOT / document).read_text(encoding="utf-8")
    tables = re.findall(r"^\|.* \| test \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    rows = [row.split(" | ") for table in tables for row in table.splitlines()]
    assert len(rows) > 15
    file = ""
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)?(?:(?:::)?(test_\w+))?`", row[-1])
        assert named, row
        for module, test in named:
            file = module or file
            assert not module or module in sources, module
            assert not test or any(f"def {test}(" in source for source in sources.values()), f"{file}::{test}"


def test_every_kind_of_failure_is_told_with_its_exit_code() -> None:
    text = (reference.PAGES / "exit-codes.md").read_text(encoding="utf-8")
    table = {(name, int(code)) for code, name in re.findall(r"^\| (\d+) \| `([^`|]+)` \|", text, re.MULTILINE)}
    assert table == {(error.code, error.exit_code) for error in reference.errors()}


# Spelled in halves, so that this file does not hold what it looks for.
NOWHERE = {
    "a registry's host": r"\b(?:files\.python"
    + r"hosted|(?:test\.)?pypi\."
    + r"org|registry-1\.docker|quay\."
    + r"io|gh"
    + r"cr\.io)",
    "a marker of unfinished work": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "a shell that reads values": r"shell=" + r"True|os\.sys" + r"tem\(",
    "a package manager forced": r"--break-system" + r"-packages",
    "an image by no version": r":lat" + r"est\b",
    "a value that escapes its quoting": r"\{\{[^}]*\|\s*sa" + r"fe\b",
}


@pytest.mark.parametrize("what", NOWHERE)
def test_stands_nowhere(what: str) -> None:
    pattern = re.compile(NOWHERE[what])
    text_files = tracked("*.py", "*.j2", "*.md", "*.yaml", "*.yml", "*.toml", "*.txt", "*.ambr", ".ci/run", "LICENSE")
    assert len(text_files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in text_files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


# A phrase that hides what happened, and the kind of words to write instead. A line is a regex; add the phrases that a
# review finds.
RIDDLES = {
    r"undone: |what was (?:there|made) is (?:back|removed|undone)": "rolled back: the previous container runs again",
    r"in another way than": "unsupported devpi-server 6.21: NAME not found",
    r"for want of": "out of memory; missing NAME",
    r"\b(?:was|were)(?: not|n't)? told\b": "upstream X did not answer for NAME; is configured with X",
    r"\bwho wins\b": "which one is served",
    r"\b[Oo]f one that\b": "a noun: a self-referencing link",
    r"\bundo nothing any more\b": "commit the rollback stack",
    r"\bnothing (?:is )?counted\b": "requests are not counted",
    r"\bwhat is no\b": "a noun: an invalid page",
    r"\bwho can't\b": "a noun: slow clients",
    r"look at (?:it|them) yourself": "a command, or one imperative sentence",
    r"\ba defect of (?:ours|deployer)\b": "internal error",
}


@pytest.mark.parametrize("riddle", RIDDLES)
def test_no_riddles(riddle: str) -> None:
    pattern = re.compile(riddle)
    files = tracked("deployer/*.py", "templates/*")
    assert len(files) > 50
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == [], f"write instead: {RIDDLES[riddle]}"


def test_json_of_others_is_parsed_in_one_place() -> None:
    """``json.loads`` raises RecursionError, too, which its callers forget."""
    found = [
        path.relative_to(ROOT).as_posix() for path in tracked("deployer/*.py") if "json.loads(" in path.read_text()
    ]
    own = [
        "deployer/clients/transparent/tunnel.py",
        "deployer/server/pages/checkpoint.py",
    ]  # they read their own output
    assert found == sorted(["deployer/protocol/values.py", *own])


def test_actions_of_workflows_are_pinned_by_their_full_digest() -> None:
    used = [
        (path.name, action)
        for path in tracked(".github/workflows/*.yml")
        for action in re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))
    ]
    assert len({name for name, _ in used}) >= 2
    assert [action for action in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action[1])] == []


def test_nothing_of_ours_becomes_root_by_itself() -> None:
    """Hints may name a command for the user to run; nothing of ours may run it."""
    for path in tracked("deployer/*.py", "templates/*"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "sudo" in line:
                assert re.search(r"hint|``sudo``|# ", line), f"{path}: {line}"


def test_the_first_command_of_the_readme_installs_what_is_declared() -> None:
    first = code_blocks(ROOT / "README.md")[0]
    assert ".[server,nginx]" in shlex.split(first)
    assert "server = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_a_change_is_of_a_kind_that_makes_it_into_the_changelog() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]
    kinds = {kind["directory"] for kind in settings["type"]}
    for fragment in tracked("changes/*.md"):
        assert fragment.name.startswith("+") and fragment.name.split(".")[-2] in kinds, fragment
