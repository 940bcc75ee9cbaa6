"""HTTPS of the balancer on this host: its certificate in a file that it reads again when it is replaced."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from deployer.certificates.pair import Pair, pair
from deployer.deployment import certificate
from deployer.files import make_private, replacing, writable
from deployer.host.state_dir import state_dir
from deployer.operations.cluster.host.balancer import PEM
from deployer.operations.prepare import Prepared


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Of the balancer of ``prepared``, a deployment as clients see it."""

    prepared: Prepared

    @staticmethod
    def directory_of(name: str) -> Path:
        """What a container reads. No other user of this host can enter it, and the file below it is open: the balancer
        may have another uid."""
        return state_dir(name) / "balancer-given"

    @property
    def _file(self) -> Path:
        return self.directory_of(self.prepared.plan.name) / PEM

    def known(self) -> Pair | None:
        """The certificate that it has; None when there is none that can be used."""
        with suppress(OSError, ValueError):
            text = self._file.read_bytes()
            return pair(text, text)
        return None

    def difference(self) -> str:
        """What is to be changed; empty without HTTPS, or when it has the certificate that is planned."""
        planned, plan = self.prepared.facts.certificate, self.prepared.plan.tls
        if planned is None or plan is None:
            return ""
        if planned.due:
            return f"HTTPS: a certificate of our own CA, to be made for {', '.join(planned.names)}"
        has = self.known()
        same = has is not None and has.shown.fingerprint == planned.fingerprint
        return "" if same else f"HTTPS: {planned.source}, which the balancer does not have yet"

    def give(self, rollback: ExitStack) -> Pair | None:
        """Make the certificate if it is due, and give it to the balancer; None without HTTPS. Raises ConflictError."""
        planned, plan = self.prepared.facts.certificate, self.prepared.plan.tls
        if planned is None or plan is None:
            return None
        network = self.prepared.loaded.profile.network
        wanted = certificate.obtain(network, self.prepared.plan.name, planned, home=Path.home(), rollback=rollback)
        former = self.known()
        if former is None or former.text != wanted.text:
            rollback.callback(self._write, former)
            self._write(wanted)
        return wanted

    def _write(self, wanted: Pair | None) -> None:
        if wanted is None:
            self._file.unlink(missing_ok=True)
            return
        make_private(self._file.parent.parent)
        with writable(self._file):
            self._file.parent.mkdir(exist_ok=True)
            self._file.parent.chmod(0o755)
            with replacing(self._file, exact=True) as stream:
                stream.write(wanted.text.encode())
