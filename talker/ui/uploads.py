"""Forms Gradio's upload stumbles over are the sender's mistake, and are answered as one."""

from __future__ import annotations

import logging

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

PATH = "/gradio_api/upload"


class SoundForms:
    """Answers 400, not 500, to an upload whose form is malformed: a part without the name of a file, for one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; what the form's parser raises becomes an answer."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(PATH):
            await self._app(scope, receive, send)
            return
        answered = False

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except (TypeError, AttributeError, AssertionError, KeyError, ValueError) as error:
            if answered:
                raise
            log.info("An upload was refused: %s: %s", type(error).__name__, error)
            refusal = PlainTextResponse("The form has a part that is no file with a name.", status_code=400)
            await refusal(scope, receive, send)
