"""The CA bundles of a transparent command: what its clients trusted before, and our CA."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deployer.errors import ClientFileError
from deployer.files import PRIVATE, replacing

OPENSSL = "SSL_CERT_FILE"
"""Of uv, of current pip, and of what uses OpenSSL's own defaults."""
REQUESTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Of requests (poetry, twine, older pip): the first that is set, before pip's own ``cert``."""
_MARK = "-----BEGIN CERTIFICATE-----"
_BLOCK = re.compile(rf"{_MARK}.*?-----END CERTIFICATE-----", re.DOTALL)


def system() -> str:
    """The roots that programs on this host trust without any setting, as PEM: the system's, else certifi's."""
    paths = ssl.get_default_verify_paths()
    for path in (paths.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"):
        if (text := _certificates(Path(path))) is not None:
            return text
    import certifi

    return Path(certifi.where()).read_text(encoding="ascii", errors="replace")


def former(env: Mapping[str, str], *, pip_cert: str) -> dict[str, str]:
    """What the clients trusted before, as PEM: by OpenSSL's variable and by those of requests.

    Raises ClientFileError when a bundle that is set can't be read: its client would fail, too.
    """
    own = env.get(OPENSSL, "")
    named = next((env[name] for name in REQUESTS if env.get(name)), "")
    certs = [_read(path) for path in (named, pip_cert) if path]
    default = "" if own and named else system()
    return {
        OPENSSL: _read(own) if own else default,
        REQUESTS[0]: "".join(certs) if named else default + "".join(certs),
    }


def bundle(former: str, ca: Path, *, directory: Path) -> Path:
    """The file in ``directory`` with these roots and our ``ca``. Raises OSError."""
    text = former.rstrip("\n") + "\n" + ca.read_text(encoding="ascii")
    path = directory / f"roots-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pem"
    if not path.exists():
        with replacing(path, mode=PRIVATE, durable=False) as stream:
            stream.write(text.encode())
    return path


def union(bundles: Iterable[str]) -> str:
    """Each certificate of these bundles once, without what is between them: builders limit the size of a secret."""
    return "".join(dict.fromkeys(f"{found}\n" for text in bundles for found in _BLOCK.findall(text)))


def _read(name: str) -> str:
    """A bundle, or a directory of certificates as requests and OpenSSL allow. Raises ClientFileError."""
    path = Path(name)
    text = _certificates(path)
    if text is None and path.is_dir():
        text = "".join(_all(sorted(path.iterdir())))
    if not text:
        raise ClientFileError(f"{name} is no CA bundle that can be read", hint="correct the setting that names it")
    return text


def _all(paths: Sequence[Path]) -> list[str]:
    texts = {text for path in paths if (text := _certificates(path)) is not None}
    return sorted(texts)


def _certificates(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text if _MARK in text else None
