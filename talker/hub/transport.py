"""One HTTP client with time and size limits for every call, and the Hub's errors in words.

The library's own client waits for ever, obeys any ``Retry-After``, and reads as much as a server sends. Here
every connection has time-outs, and a :func:`limits` block bounds the calls in it together.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from huggingface_hub import errors as hf
from huggingface_hub import set_client_factory
from huggingface_hub.utils import disable_progress_bars, httpx
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils._http import _parse_retry_after, hf_request_event_hook, parse_ratelimit_headers

from talker.errors import HubError

log = logging.getLogger(__name__)

CONNECT_S, READ_S = 10.0, 120.0
CONNECT_TRIES = 2
MAX_WAIT_S = 300.0
"""Longest pause a busy server may ask for outside a :func:`limits` block."""

_prepared = False
_lock = threading.Lock()


@dataclass
class _Budget:
    deadline: float  # time.monotonic()
    bytes_left: int
    on_bytes: Callable[[int], None] | None = None
    failed_connects: int = 0

    def check_time(self, extra_s: float = 0.0) -> None:
        if time.monotonic() + extra_s > self.deadline:
            raise HubError(
                "hub.timeout",
                "The Hub is too slow right now.",
                todo="Nothing was lost. Try again later.",
            )

    def spend(self, n: int) -> None:
        self.check_time()
        self.bytes_left -= n
        if self.bytes_left < 0:
            raise HubError(
                "hub.too_large",
                "The Hub sends more than it announced.",
                todo="Do not use this avatar; it may have been tampered with.",
            )
        if self.on_bytes is not None:
            self.on_bytes(n)


_BUDGET: ContextVar[_Budget | None] = ContextVar("talker_hub_budget", default=None)


@contextmanager
def limits(
    seconds: float, max_bytes: int = 16 << 20, on_bytes: Callable[[int], None] | None = None
) -> Iterator[None]:
    """Bound all calls of this thread in the block: time, bytes received. Translates their errors.

    Args:
        seconds: For everything together, waiting included.
        max_bytes: Bytes of answers; the stream is cut at the first byte beyond.
        on_bytes: Called with the size of every chunk received.

    Raises:
        HubError: Whatever goes wrong at the Hub or on the way to it.
    """
    prepare()
    token = _BUDGET.set(_Budget(time.monotonic() + seconds, max_bytes, on_bytes))
    try:
        yield
    except HubError:
        raise
    except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise translate(error) from error
    finally:
        _BUDGET.reset(token)


def prepare() -> None:
    """Give huggingface_hub our client, once per process, and silence its bars and warnings: we say it all."""
    global _prepared  # noqa: PLW0603 - the library's client is process-wide as well
    with _lock:
        if not _prepared:
            set_client_factory(_make_client)
            disable_progress_bars()
            hub_logging.set_verbosity_error()
            _prepared = True


class _Client(httpx.Client):
    """Says that there is no network after the second try; the library would go on for half a minute."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        try:
            return super().send(request, **options)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            budget = _BUDGET.get()
            if budget is not None:
                budget.failed_connects += 1
                if budget.failed_connects >= CONNECT_TRIES:
                    raise translate(error) from error
            raise


def _make_client() -> httpx.Client:
    return _Client(
        event_hooks={"request": [_on_request], "response": [_on_response]},
        follow_redirects=True,
        timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
    )


def _on_request(request: httpx.Request) -> None:
    hf_request_event_hook(request)
    budget = _BUDGET.get()
    if budget is not None:
        budget.check_time()


def _on_response(response: httpx.Response) -> None:
    budget = _BUDGET.get()
    if response.status_code in (429, 503):
        wait_s = _asked_wait(response)
        too_long = wait_s > MAX_WAIT_S if budget is None else time.monotonic() + wait_s > budget.deadline
        if too_long:
            raise _rate_limited(wait_s)
        if wait_s:
            log.warning("the Hub is busy and asks to wait %.0f s", wait_s)
    if budget is not None and isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Guarded(response.stream, budget)


def _asked_wait(response: httpx.Response) -> float:
    info = parse_ratelimit_headers(response.headers)
    if info is not None and info.remaining == 0:
        return float(info.reset_in_seconds)
    return float(_parse_retry_after(response.headers) or 0)


class _Guarded(httpx.SyncByteStream):
    """A response body that counts its bytes and watches the clock."""

    def __init__(self, inner: httpx.SyncByteStream, budget: _Budget) -> None:
        self._inner, self._budget = inner, budget

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            self._budget.spend(len(chunk))
            yield chunk

    def close(self) -> None:
        self._inner.close()


# --- errors -------------------------------------------------------------------------------------------------


def status_of(error: BaseException | None) -> int | None:
    """HTTP status behind an error of the library, if there is one."""
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def translate(error: BaseException) -> HubError:
    """The Hub's error as a typed one. Never quotes the server, an address or a token."""
    # The library hides the true reason behind these; they say only where it happened.
    while isinstance(error, hf.LocalEntryNotFoundError | RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, HubError):
        return error
    if isinstance(
        error, hf.OfflineModeIsEnabled | httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError
    ):
        return HubError(
            "hub.offline",
            "The Hub cannot be reached.",
            expected="A connection to the Hugging Face Hub.",
            todo="Check the network and try again; avatars on this machine work without it.",
        )
    if isinstance(error, hf.LocalTokenNotFoundError):
        return no_token()
    status = status_of(error)
    if status is not None:
        return _of_status(error, status)
    if isinstance(error, httpx.HTTPError | hf.FileMetadataError):
        return _interrupted()
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return HubError("hub.no_space", "The disk is full.", todo="Free some space and try again.")
        return _interrupted()
    return HubError(
        "hub.protocol",
        "The Hub gave an answer that cannot be understood.",
        todo="Try again later, or update talker.",
    )


_BY_STATUS = {
    401: (
        "hub.unauthorized",
        "The Hub does not accept the sign-in: the token is wrong or has expired.",
        "Sign in again and repeat the step.",
    ),
    403: (
        "hub.forbidden",
        "The Hub does not allow this with your token.",
        "Publish under your own name, or use a token that may write to this repository.",
    ),
    409: (
        "hub.conflict",
        "The repository was changed by somebody else meanwhile.",
        "Try again.",
    ),
    412: (
        "hub.conflict",
        "The repository was changed by somebody else meanwhile.",
        "Try again.",
    ),
}


def _of_status(error: BaseException, status: int) -> HubError:
    if isinstance(error, hf.RevisionNotFoundError):
        return HubError(
            "hub.revision", "The repository has no such revision.", todo="Leave the revision out."
        )
    hidden = hf.RepositoryNotFoundError | hf.DisabledRepoError | hf.EntryNotFoundError
    if isinstance(error, hidden) or status == 404:
        return not_found()
    if status == 429:
        return _rate_limited(0)
    if status in _BY_STATUS:
        code, found, todo = _BY_STATUS[status]
        return HubError(code, found, todo=todo)
    if status >= 500 or status == 408:
        return HubError(
            "hub.unavailable",
            f"The Hub is not working right now (status {status}).",
            todo="Nothing was lost. Try again later.",
        )
    return HubError("hub.refused", f"The Hub refused the request (status {status}).", todo="Try again later.")


def not_found() -> HubError:
    """One text for missing, private and gated: whoever may not read must not learn that it exists."""
    return HubError(
        "hub.not_found",
        "There is no such avatar on the Hub, or you have no access to it.",
        todo="Check the name. If it is private or gated, sign in with an account that may see it.",
    )


def no_token() -> HubError:
    """Nobody is signed in."""
    return HubError(
        "hub.no_token",
        "You are not signed in to the Hub.",
        todo="Sign in, or give a token that may write to your repositories.",
    )


def _rate_limited(wait_s: float) -> HubError:
    when = f"in {wait_s / 60:.0f} minutes" if wait_s >= 90 else "in a few minutes"
    return HubError(
        "hub.rate_limited", "The Hub takes no more requests from you for now.", todo=f"Try again {when}."
    )


def _interrupted() -> HubError:
    return HubError(
        "hub.interrupted",
        "The connection to the Hub was interrupted.",
        todo="Nothing was lost. Try again.",
    )
