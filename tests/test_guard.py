"""Who gets an answer of the page, and who does not."""

from __future__ import annotations

import asyncio

import pytest

from subjectiveqe.guard import Guard, refusal


def asked(path="/config", **headers):
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "headers": named}


@pytest.mark.parametrize(
    ("listened", "headers"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:7860"}),
        ("127.0.0.1", {"host": "localhost:7860", "origin": "http://localhost:7860"}),
        ("::1", {"host": "[::1]:7860", "origin": "http://[::1]:7860"}),
        ("0.0.0.0", {"host": "desk.lan:7860", "origin": "http://desk.lan:7860"}),
        ("LOCALHOST", {"host": "127.0.0.2:7860"}),
        ("0.0.0.0", {"host": "sqe.example", "origin": "https://sqe.example"}),
    ],
)
def test_the_page_itself_is_answered(listened, headers):
    assert refusal(asked("/gradio_api/upload", **headers), listened) == ""


@pytest.mark.parametrize(
    ("listened", "headers", "said"),
    [
        ("127.0.0.1", {"host": "evil.example"}, 'this machine alone, not as "evil.example"'),
        ("127.0.0.1", {"host": "[::1"}, "this machine alone"),
        ("127.0.0.1", {}, "this machine alone"),
        ("127.0.0.1", {"host": "127.0.0.1:7860", "origin": "http://evil.example"}, "other sites"),
        ("127.0.0.1", {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:9000"}, "other sites"),
        ("127.0.0.2", {"host": "evil.example"}, "this machine alone"),
        ("0.0.0.0", {"host": "10.0.0.2:7860", "origin": "null"}, "other sites"),
        ("0.0.0.0", {"host": "10.0.0.2:7860", "origin": "http://[::1"}, "other sites"),
        ("0.0.0.0", {"host": "a", "origin": "http://evil.example", "x_forwarded_host": "evil.example"}, "other sites"),
    ],
)
def test_other_sites_are_refused(listened, headers, said):
    assert said in refusal(asked("/gradio_api/upload", **headers), listened)


@pytest.mark.parametrize("path", ["/gradio_api/file=http://8.8.8.8/x.jpg", "/file=HTTPS://a.b/c", "/proxy=http://a/b"])
def test_nothing_is_fetched_from_elsewhere(path):
    assert refusal(asked(path, host="localhost"), "127.0.0.1") == "nothing is fetched from elsewhere"
    assert refusal(asked("/gradio_api/file=/tmp/http:/a.png", host="localhost"), "127.0.0.1") == ""


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("evil.example", 403)])
def test_what_is_refused_does_not_reach_what_is_guarded(host, status):
    sent = []

    async def guarded(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(guarded, "127.0.0.1")(asked(host=host), None, send))
    assert sent[0]["status"] == status
