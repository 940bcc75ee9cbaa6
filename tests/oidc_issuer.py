"""An issuer of ID tokens on loopback, and others that do wrong, each below a path of its own."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "https://packages.example.com"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused
EC_KEY = ec.generate_private_key(ec.SECP256R1())
JWKS: dict[str, Any] = {
    "keys": [
        {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "rsa", "use": "sig"},
        {**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "ec", "alg": "ES256"},
        {**RSAAlgorithm.to_jwk(SMALL_KEY.public_key(), as_dict=True), "kid": "small"},
        {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "sealing", "use": "enc"},
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
    ]
}


def claims(issuer: str, **changed: Any) -> dict[str, Any]:
    """The claims of a job of ``acme/app``; ``None`` leaves a claim out."""
    now = int(time.time())
    found = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": "repo:acme/app:ref:refs/heads/main",
        "repository": "acme/app",
        "jti": str(uuid.uuid4()),
        "iat": now,
        "nbf": now - 5,
        "exp": now + 300,
        **changed,
    }
    return {name: value for name, value in found.items() if value is not None}


def signed(found: dict[str, Any], key: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "rsa") -> str:
    return jwt.encode(found, key, algorithm=algorithm, headers={} if kid is None else {"kid": kid})


class Issuer:
    """``url``: of the one that works. Others: ``of("huge")``, ``moved``, ``elsewhere``, ``other``, ``broken``."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked[self.path] += 1
                name, _, path = self.path[1:].partition("?")[0].partition("/")
                about = {"issuer": issuer.of(name), "jwks_uri": f"{issuer.of(name)}/keys"}
                match name, path:
                    case _, "id-token":  # as the runner of a job gives it
                        audience = parse_qs(urlsplit(self.path).query)["audience"][0]
                        body = {"value": signed(claims(issuer.of(name), aud=audience))}
                        self._send(200 if self.headers["Authorization"] else 401, json.dumps(body).encode())
                    case "moved", "keys":
                        self._send(302, b"", Location=f"{issuer.of('good')}/keys")
                    case "broken", _:
                        self._send(500, b"broken")
                    case "huge", "keys":
                        self._send(200, json.dumps({**JWKS, "more": "x" * 1_000_000}).encode())
                    case "elsewhere", _:
                        self._send(200, json.dumps({**about, "jwks_uri": "http://localhost:9/keys"}).encode())
                    case "other", ".well-known/openid-configuration":
                        self._send(200, json.dumps({**about, "issuer": "https://ci.example.com"}).encode())
                    case _, ".well-known/openid-configuration":
                        self._send(200, json.dumps(about).encode())
                    case _:
                        self._send(200, json.dumps(JWKS).encode())

            def _send(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def of(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    @property
    def url(self) -> str:
        return self.of("good")

    @property
    def job(self) -> dict[str, str]:
        """The variables of a job of GitHub Actions."""
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/id-token?api-version=2",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "a runner",
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
