"""A cookie that keeps the work of several visitors apart. It names nobody; it only has to be unguessable."""

from __future__ import annotations

import secrets
from http.cookies import SimpleCookie

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talker.ui.context import COOKIE, VISITOR

MAX_AGE_S = 365 * 24 * 3600


class VisitorCookie:
    """Gives every browser that opens a page a random HttpOnly identity."""

    def __init__(self, app: ASGIApp, *, secure: bool = False) -> None:
        self._app = app
        # Inside the frame of another site (as Spaces are shown) only SameSite=None cookies travel.
        self._flags = "; SameSite=None; Secure; Partitioned" if secure else "; SameSite=Lax"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add the cookie to the answer if the browser has none."""
        if scope["type"] != "http" or scope["method"] != "GET" or _known(scope):
            await self._app(scope, receive, send)
            return
        value = f"{COOKIE}={secrets.token_hex(16)}; Path=/; Max-Age={MAX_AGE_S}; HttpOnly{self._flags}"

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_page(message):
                message["headers"] = [*message["headers"], (b"set-cookie", value.encode())]
            await send(message)

        await self._app(scope, receive, with_cookie)


def _known(scope: Scope) -> bool:
    header = next((v for k, v in scope["headers"] if k == b"cookie"), b"").decode("latin-1")
    found = SimpleCookie(header).get(COOKIE)
    return found is not None and VISITOR.fullmatch(found.value) is not None


def _is_page(message: Message) -> bool:
    return any(k == b"content-type" and v.startswith(b"text/html") for k, v in message["headers"])
