"""What every refusal looks like, whatever was refused."""

from typing import Any

import httpx

MEMBERS = {"type", "title", "status", "detail", "code", "request_id", "errors"}


def assert_refused(response: httpx.Response, status: int, code: str, *pointers: str) -> dict[str, Any]:
    """Check the shape of a problem response and that it says what is wrong and where; return its body."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert set(body) == MEMBERS
    assert (body["status"], body["code"]) == (status, code), body
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert [error["pointer"] for error in body["errors"]] == list(pointers), body
    assert body["detail"].endswith((".", ".)")), body
    assert "Traceback" not in response.text
    for error in body["errors"]:
        assert set(error) == {"pointer", "detail"}
        assert error["detail"], body
    if len(pointers) == 1:
        assert (pointers[0] or "The body") in body["detail"], body
        assert not body["detail"].startswith(body["errors"][0]["detail"]), body
    return body
