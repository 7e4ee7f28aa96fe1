"""The routes of Gradio that the page needs, and no other: no upload, no file of this machine, no proxy."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ms_medqa.serving.errors import ApiError, invalid
from ms_medqa.serving.intake import while_open
from ms_medqa.serving.json_body import parse_json, read_body
from ms_medqa.serving.page.visits import Held, Visits, busy
from ms_medqa.serving.responses import error_response, gone
from ms_medqa.serving.service import Service

HOME = "/"
# Gradio's own scripts, styles and pictures; no part of a path begins with a dot. Of a longer one a file system makes
# an error.
_FILES = re.compile(r"/(assets|static)(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}){1,8}|/(theme\.css|favicon\.ico)")
_NAME = re.compile(r"[A-Za-z0-9]{1,64}")
_HEARTBEAT = re.compile(rf"/gradio_api/heartbeat/({_NAME.pattern})")
_JOIN, _DATA = "/gradio_api/queue/join", "/gradio_api/queue/data"
_PLAIN = (str, int, float)
# What Gradio is not given. Of whose page may read answers it is not for Gradio to say, and under what address a person
# sees this page is told by the proxy's `Host`.
_HIDDEN = (b"origin", b"x-forwarded-host", b"x-gradio-server")
_MESSAGES = {
    404: "there is no such file",
    405: "the file does not take this method",
    416: "the file has no such part",
}
# A browser keeps to this whatever the page says: nothing is loaded from or sent to another host, and no other page may
# hold this one in a frame. Gradio puts its config and its styles into the page itself.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# Elements of Gradio's template that would have a browser call other hosts.
_OUTSIDE = re.compile(
    r"<script\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>\s*</script>|<(?:link|meta)\b[^>]*[\"'](?:https?:)?//[^>]*>", re.I
)


class Page(Held, Protocol):
    """What stands behind these routes.

    Attributes:
        inputs: of each function that a page calls, by its number, how many values it takes.
    """

    inputs: Mapping[int, int]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

    def knows(self, name: str) -> bool:
        """There is something for the page of that name to fetch, or has been."""


def serves(method: str, path: str) -> bool:
    """A request that is the page's."""
    if method == "POST":
        return path == _JOIN
    if method in ("GET", "HEAD") and (path == HOME or _FILES.fullmatch(path) is not None):
        return True
    # Of a connection that an open page holds there is no head alone.
    return method == "GET" and (path == _DATA or _HEARTBEAT.fullmatch(path) is not None)


class PageRoutes:
    """Hands the page's requests to Gradio, checked, and all others on.

    Args:
        app: all other routes.
        page: what Gradio makes of the page.
        service: its limits hold for the page.
    """

    def __init__(self, app: ASGIApp, page: Page, service: Service) -> None:
        self._app = app
        self._page = page
        self._service = service
        self._visits = Visits(page, service.settings.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not serves(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            if scope["path"] == HOME:
                await self._home(scope, receive, send)
                return
            _check_origin(Headers(scope=scope))
            if scope["method"] == "POST":
                receive = await self._read(scope, receive)
                await self._gradio(scope, receive, _with_policy(send))
            else:
                await self._visit(scope, receive, _with_policy(send))
        except ApiError as error:
            await error_response(error)(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> Receive:
        """The request's body within the limits of all bodies, to be received once more."""
        service, settings = self._service, self._service.settings
        late = ApiError(408, "the request's body did not arrive in time")
        until = time.monotonic() + settings.request_seconds
        data = await while_open(service, read_body(Request(scope, receive), settings.max_body_bytes), until, late)
        name, body = await service.threads.run_long(len(data), partial(_checked, data, self._page.inputs))
        self._visits.ask(name, len(body))
        again = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return again.pop() if again else await receive()

        return replay

    async def _gradio(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have Gradio answer.

        Raises:
            ApiError: its answer is an error, which it tells in another shape than all others here have.
        """
        headers = [(name, value) for name, value in scope["headers"] if name not in _HIDDEN]
        error: ApiError | None = None

        async def sent(message: Message) -> None:
            nonlocal error
            if message["type"] == "http.response.start" and message["status"] >= 400:
                error = _error(message["status"], Headers(raw=message["headers"]))
            if error is None:
                await send(message)

        await self._page({**scope, "headers": headers}, receive, sent)
        if error is not None:
            raise error

    async def _home(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Gradio would restore a page from a file that the query names.
        headers = MutableHeaders(raw=list(scope["headers"]))
        headers["accept-encoding"] = "identity"
        start: Message = {}
        body = bytearray()

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.extend(message.get("body", b""))

        await self._gradio({**scope, "headers": headers.raw, "query_string": b""}, receive, collect)
        text = _OUTSIDE.sub("", body.decode("utf-8")).encode()
        MutableHeaders(scope=start)["content-length"] = str(len(text))
        await _with_policy(send)(start)
        await send({"type": "http.response.body", "body": text if scope["method"] == "GET" else b""})

    async def _visit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a file, or a connection of an open page."""
        name, reads = _name(scope), scope["path"] == _DATA
        if name is None:
            await self._follow(scope, receive, send)
            return
        if reads and not self._page.knows(name):
            raise ApiError(404, "there is nothing for this page to fetch", code="not_found")
        with self._visits.connected(name, reads):
            over = await self._follow(scope, receive, send)
        if not over:
            self._page.leave(name)
        elif reads:
            self._visits.all_read(name)

    async def _follow(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve what may last as long as a page is open, but no longer than its client or the server.

        Gradio itself looks for its client only where it has something to send, every 15 seconds.

        Returns:
            It came to its end before one of them left.
        """
        began = ended = False

        async def watched(message: Message) -> None:
            nonlocal began, ended
            began = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        response = asyncio.ensure_future(self._gradio(scope, asyncio.Event().wait, watched))
        left = asyncio.ensure_future(gone(receive))
        over = asyncio.ensure_future(self._service.over.wait())
        tasks = (response, left, over)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done = response.done()
            if done:
                response.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if began and not ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        return done


def _checked(data: bytes, inputs: Mapping[int, int]) -> tuple[str, bytes]:
    """The name of the page that makes a call, and what Gradio is given: what it needs, and nothing that may be more."""
    call = parse_json(data)
    values, function, trigger = (call.get(name) for name in ("data", "fn_index", "trigger_id"))
    # Gradio takes a mapping for a file of this machine, and writes what it cannot take into the log.
    if not isinstance(values, list) or not all(value is None or isinstance(value, _PLAIN) for value in values):
        raise invalid("data must be a list of texts and numbers", "data")
    if type(function) is not int or inputs.get(function) != len(values):
        raise invalid("fn_index must be the number of a function that takes so many values", "fn_index")
    page = call.get("session_hash")
    if not isinstance(page, str) or not _NAME.fullmatch(page):
        raise invalid("session_hash must be the name of a page", "session_hash")
    known = {
        "data": values,
        "fn_index": function,
        "session_hash": page,
        "trigger_id": trigger if type(trigger) is int else None,
    }
    return page, json.dumps(known, ensure_ascii=False).encode()


def _name(scope: Scope) -> str | None:
    """Of the open page whose connection this is; None where it is for a file."""
    if scope["path"] == _DATA:
        return QueryParams(scope["query_string"]).get("session_hash", "")
    heartbeat = _HEARTBEAT.fullmatch(scope["path"])
    return heartbeat[1] if heartbeat else None


def _error(status: int, headers: Headers) -> ApiError:
    if status == 503:
        return busy("too many calls of pages are waiting")
    kept = {name: headers[name] for name in ("allow", "content-range") if name in headers}
    return ApiError(status, _MESSAGES.get(status, "the page does not take this request"), headers=kept)


def _check_origin(headers: Headers) -> None:
    """Refuse what another site's page has a browser ask, which sends the key by itself once a person has given it."""
    origin = headers.get("origin")
    if origin is not None and _host(origin) != headers.get("host", "").lower():
        raise ApiError(403, "the page answers only itself", code="wrong_origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ApiError(403, "the page answers only itself", code="wrong_origin")


def _host(origin: str) -> str | None:
    """Of an origin, with its port; None where it has none, as `null`."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _with_policy(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = _POLICY
            headers["Referrer-Policy"] = "no-referrer"
        await send(message)

    return sent
