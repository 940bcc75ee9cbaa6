"""The sessions of development: ``nox -s tests``, ``nox -s lint``, ``nox -s coverage``, ``nox -s changelog``."""

import nox

nox.options.sessions = ["lint", "tests"]


@nox.session
def tests(session: nox.Session) -> None:
    session.install("-e", ".[server,test]")
    session.run("pytest", *(session.posargs or ("-n", "2")))


@nox.session
def lint(session: nox.Session) -> None:
    session.install("-e", ".[server,test,lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def coverage(session: nox.Session) -> None:
    session.install("-e", ".[server,test]", "coverage")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "report", "--skip-covered")


@nox.session
def changelog(session: nox.Session) -> None:
    """Preview what towncrier makes of the fragments in ``changes/``."""
    session.install("towncrier", "-e", ".")
    session.run("towncrier", "build", "--draft", *session.posargs)
