"""The sessions of development: ``nox -s tests``, ``nox -s lint``, ``nox -s coverage``, ``nox -s docs``,
``nox -s changelog``."""

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
def docs(session: nox.Session) -> None:
    """Make the pages that come from the code, and build the site into ``site/``; a broken link or anchor fails."""
    session.install("-e", ".[docs]")
    session.run("python", "-m", "tools.reference")
    session.run("zensical", "build", "--strict", "--clean")


@nox.session
def mutants(session: nox.Session) -> None:
    """Change the code in small ways, and list the changes that no fast test sees: by hand, not in CI.

    ``nox -s mutants -- 'deployer.plan.data*'`` for a part. What is changed and which tests look: [tool.mutmut].
    """
    session.install("-e", ".[server,test]", "mutmut>=3.8")
    session.run("mutmut", "run", *session.posargs, env={"HYPOTHESIS_PROFILE": "few"})
    session.run("mutmut", "results")


@nox.session
def changelog(session: nox.Session) -> None:
    """Preview what towncrier makes of the fragments in ``changes/``."""
    session.install("towncrier", "-e", ".")
    session.run("towncrier", "build", "--draft", *session.posargs)
