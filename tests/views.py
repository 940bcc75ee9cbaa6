"""The views of a server of ours as Pyramid knows them, and the table of them in SECURITY.md."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

SECURITY = Path(__file__).parents[1] / "SECURITY.md"
HEADING = "### Every view of the server"
_RULE = {
    "issuer": "https://ci.example.com",
    "audience": "https://packages.example.com",
    "claims": {"repository": "acme/*"},
    "user": "ci",
    "permissions": ["read"],
    "indexes": ["root/dev"],
    "seconds": 900,
}
_LOOK = """
import json, os, sys
from pathlib import Path
from deployer.server import secret_files
from deployer.server.boot import run
from deployer.server.devpi import replacements
from deployer.server.inventory import database as inventory
from deployer.server.members import role
from deployer.server.nginx import activity, history
from deployer.server.oidc import rules as oidc
from deployer.server.secret_files import Private
from deployer.server.upstream.credentials import Credentials
from devpi_server.config import parseoptions
from devpi_server.init import init
from devpi_server.main import xom_from_config

serverdir = Path(sys.argv[1])
private = Private.of(serverdir)
private.directory.mkdir()
secret_files.ensure_keys(private)
replacements.install(lambda url: None, web=True)
plugins = run.plugins_of(Credentials(private.credentials), web=True)
init(pluginmanager=plugins, argv=["devpi-init", "--serverdir", str(serverdir), "--no-root-pypi"])
for module, made in (
    (inventory, inventory.Inventory(private.inventory)),
    (history, history.History(private.history)),
    (activity, activity.Recent()),
    (oidc, oidc.Rules.of([sys.argv[2]])),
    (role, role.Role(role.PRIMARY)),
):
    plugins.register(made, name=module.NAME)
xom = xom_from_config(parseoptions(plugins, ["devpi-server", "--serverdir", str(serverdir)]))
app = xom.create_app()
registry = getattr(app, "app", app).registry
found = set()
for item in registry.introspector.get_category("views"):
    view = item["introspectable"]
    route = registry.introspector.get("routes", view["route_name"]) if view["route_name"] else None
    if route is None:
        continue
    methods = view["request_methods"] or ["*"]
    for method in [methods] if isinstance(methods, str) else methods:
        found.add(f"{method} {route['pattern']}")
print(json.dumps(sorted(found)))
sys.stdout.flush()
os._exit(0)
"""


def views(python: str) -> set[str]:
    """Method and address of each view, the names of their parts without patterns: ``GET /{user}``."""
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [python, "-c", _LOOK, directory, json.dumps(_RULE)],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    plain = (re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", view) for view in found)
    return {
        re.sub(r" (?!/)", " /", re.sub(r"\+static-[^/]*/", "+static/", view)) for view in plain if "HEAD " not in view
    }


def documented() -> set[str]:
    """The views in the table."""
    table = SECURITY.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n#")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {view for row in rows for view in re.findall(r"`([^`]+)`", row)}
