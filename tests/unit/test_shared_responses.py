"""The response that one request got, as other clients get it."""

from __future__ import annotations

import pytest

from deployer.server.middleware.requests import PageRequest
from deployer.server.middleware.responses import SharedResponse

PAGE = PageRequest(user="root", index="dev", project="demo", format=None, name=None, up="../")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (404, b"root/dev has no project demo\n"),
        (500, b"root/dev can't serve demo: see the server's log\n"),
    ],
)
def test_an_error_of_devpi_is_not_passed_on_word_for_word(status: int, text: bytes) -> None:
    response = SharedResponse.of_text(status, "of 192.0.2.7").for_others(PAGE)
    assert (response.status, response.body) == (status, text)


def test_a_page_is() -> None:
    response = SharedResponse(200, (), b'{"files": [{"filename": "demo-1.0.tar.gz"}]}')
    assert response.for_others(PAGE) is response
