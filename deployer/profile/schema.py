"""``python -m deployer.profile.schema > profiles/schema.json``: the JSON Schema (2020-12) of profiles, for editors.

The shape comes from the models, the descriptions from the comments of ``profiles/reference.yaml``: nothing is
written twice.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from deployer.profile.load.lists import KEYS, MARK
from deployer.profile.models import Profile
from deployer.profile.validation import ENTRIES
from deployer.resources import profiles_dir

# "key: value  # comment"; a key that has no default stands in the reference as a comment itself.
_LINE = re.compile(r"(?P<indent> *)(?:# (?=\w+:))?(?P<key>[\w/]+):(?P<value>[^#]*)(?:# (?P<comment>.*))?")
_MORE = re.compile(r" {8,}# +(?P<comment>.*)")
_FILE = rf"^{MARK}[/~]"
"""A file with requirements; it is read before a list is checked."""
_HEAD = {
    "extends": "The profile that this one changes: a name, or a path beside this file.",
    "description": "One line for the list of profiles.",
}


_SECTIONS = {
    "": "",
    "Index": "indexes",
    "User": "users",
    "Backups": "backup",
    "Keep": "backup.keep",
    "Remote": "backup.remote",
    "Tls": "network.tls",
}
"""The section of the reference that has the keys of a model, where it is not the model's name."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a profile file; every key may be left out, as the extended profile has it."""
    made = Profile.model_json_schema()
    comments = _comments()
    definitions = made["$defs"]
    for name, definition in [("", made), *definitions.items()]:
        section = _SECTIONS.get(name, name.lower())
        # What one file leaves out, another may say.
        definition.pop("required", None)
        definition.pop("title", None)
        if name:
            definition["description"] = comments.get(section, "")
        for key, value in definition["properties"].items():
            value.pop("title", None)
            value["description"] = comments.get(f"{section}.{key}".removeprefix("."), "") or value["description"]
    for key in KEYS:
        (listed, _) = definitions["Index"]["properties"][key]["anyOf"]
        listed["items"] |= {"pattern": f"({listed['items']['pattern']})|{_FILE}", "maxLength": 4096}
    for section, definition in (("users", "User"), ("indexes", "Index")):
        entries = made["properties"][section]
        entries["additionalProperties"] = False
        for pattern in entries["patternProperties"]:
            entries["patternProperties"][pattern] = {"anyOf": [{"$ref": f"#/$defs/{definition}"}, {"type": "null"}]}
    head = {key: {"type": "string", "description": text} for key, text in _HEAD.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A profile of deployer",
        "type": "object",
        "additionalProperties": False,
        "properties": head | made["properties"],
        "$defs": definitions,
    }


def _comments() -> dict[str, str]:
    """The comment of each key of the reference; entries of users and indexes share those of their fields."""
    comments: dict[str, str] = {}
    section = entry = last = ""
    for line in (profiles_dir() / "reference.yaml").read_text(encoding="utf-8").splitlines():
        if last and (more := _MORE.fullmatch(line)):
            comments[last] += " " + more["comment"]
            continue
        last, found = "", _LINE.fullmatch(line)
        if found:
            key, depth = found["key"], len(found["indent"]) // 2
            section = section if depth else key
            entry = key if depth == 1 else entry
            below = section if depth == 1 or section in ENTRIES else f"{section}.{entry}"
            last = f"{below}.{key}" if depth else section
            if found["comment"]:
                comments[last] = found["comment"]
            else:
                last = ""
    return comments


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
