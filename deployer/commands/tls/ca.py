"""``deployer tls ca``: the certificate of the CA, which clients on other hosts have to trust."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Common
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    pass


def run(options: Options, ui: UI) -> Result:
    """Print the CA's certificate, which clients have to trust.

    It holds nothing secret: `deployer tls ca > ca.pem`, and give the file to your colleagues. What they do with it is
    shown, too.
    """
    from deployer.operations.tls import authority

    found = authority(options.name)
    for title, words in found.steps:
        ui.step(title, words)
    data = {"path": str(found.path), "text": found.text, "url": found.url, "simple_url": found.simple_url}
    return Result(data=data, text=found.text.rstrip("\n"))
