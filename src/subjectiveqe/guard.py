"""What stands before the page of `sqe app`: other sites in the same browser do not get through to it, nor out by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from ipaddress import ip_address
from typing import Any, TypeAlias
from urllib.parse import urlsplit

Scope: TypeAlias = Mapping[str, Any]
_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[Any, _Receive, _Send], Awaitable[None]]


class Guard:
    """An ASGI application around another one, which answers 403 to what `refusal` names.

    Args:
        app: what is guarded.
        host: the address that is listened on.
    """

    def __init__(self, app: _App, host: str) -> None:
        self._app, self._host = app, host

    async def __call__(self, scope: Scope, receive: _Receive, send: _Send) -> None:
        """Answers one request."""
        reason = refusal(scope, self._host) if scope["type"] == "http" else ""
        if not reason:
            await self._app(scope, receive, send)
            return
        kind = (b"content-type", b"text/plain; charset=utf-8")
        await send({"type": "http.response.start", "status": 403, "headers": [kind]})
        await send({"type": "http.response.body", "body": reason.encode()})


def refusal(scope: Scope, host: str) -> str:
    """Why a request gets no answer; nothing where it gets one.

    A page of another site may send requests here, and be told its own name for this machine (DNS rebinding); Gradio
    would also hand on what lies elsewhere, by its address.

    Args:
        scope: of ASGI, of type "http".
        host: the address that is listened on; if it is this machine's own, nobody knows it by another name.
    """
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    named, origin = headers.get(b"host", ""), headers.get(b"origin")
    if _is_local(host) and not _is_local(_machine(f"//{named}")):
        return f'this page is served to this machine alone, not as "{named}"; see --host'
    if origin and origin.partition("://")[2] != named:
        return "requests of other sites are refused; a proxy has to hand on the Host that was asked for"
    path = scope["path"]
    if "/proxy=" in path or path.partition("/file=")[2].lower().startswith(("http:", "https:")):
        return "nothing is fetched from elsewhere"
    return ""


def _machine(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_local(machine: str) -> bool:
    try:
        return machine.lower() == "localhost" or ip_address(machine).is_loopback
    except ValueError:
        return False
