"""What is replaced of devpi's code: no more than the documentation says, and nothing where devpi is another one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deployer.server.devpi.installed import installed
from tests.replaced import INSTALL, documented, replaced

HOMES = {
    "MirrorStage": "devpi_server.mirror",
    "ProjectUpdateCache": "devpi_server.mirror",
    "BaseStage": "devpi_server.model",
    "auth": "devpi_server",
    "TokenUtility": "devpi_tokens.server",
    "PyPIView": "devpi_server.views",
}
GUARDED = (
    "MirrorStage._async_fetch_releaselinks",
    "MirrorStage._update_simplelinks_in_future",
    "MirrorStage.mirror_url_authorization_header",
    "ProjectUpdateCache.acquire",
    "auth.pwd_context",
    "TokenUtility._derive_key",
    "PyPIView._push_external",
    "PyPIView.simple_refresh",
    "BaseStage.op_sro",
    "BaseStage.op_sro_check_mirror_whitelist",
    "BaseStage.get_mirror_whitelist_info",
)

pytestmark = pytest.mark.skipif(installed().major != "6", reason="names of devpi-server 6; of 7: test_server_7")


def test_what_is_documented_is_all() -> None:
    assert replaced(sys.executable) == documented("6")


@pytest.mark.parametrize("name", GUARDED)
def test_a_devpi_that_lacks_it_is_refused(name: str) -> None:
    owner, _, attribute = name.partition(".")
    script = f"""
from {HOMES[owner]} import {owner}
delattr({owner}, {attribute!r})
from deployer.server.refusal import Refusal
try:
    {INSTALL.strip().replace(chr(10), chr(10) + "    ")}
except Refusal as refusal:
    print(refusal.code, refusal.cause)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=False)
    assert done.stdout.startswith("11 this devpi-server "), done.stderr
