"""``python -m deployer.schema > profiles/schema.json``: the JSON Schema of profiles, for editors."""

from __future__ import annotations

import json
import sys

from deployer.loader import schema

if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
