"""The routes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from ms_medqa import __version__
from ms_medqa.serving import intake
from ms_medqa.serving.bodies import ChatBody, CompletionBody, GenerationBody, check_body
from ms_medqa.serving.errors import ApiError, internal
from ms_medqa.serving.front import CLIENT_LEFT, Front, Gate
from ms_medqa.serving.json_body import parse_json, read_body
from ms_medqa.serving.page import INSTALL, has_page, load_page
from ms_medqa.serving.page.routes import PageRoutes, serves
from ms_medqa.serving.responses import (
    ClientGone,
    Follower,
    StreamedResponse,
    WholeResponse,
    error_response,
    while_connected,
)
from ms_medqa.serving.service import ServedModel, Service
from ms_medqa.serving.worker import Places

_Body = TypeVar("_Body", bound=GenerationBody)
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


def build_app(service: Service, key: str | None = None) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        service: its worker has been started.
        key: what clients must show; None serves this machine alone.
    """
    page = has_page(service.settings.page)
    # The pages for reading the schema load their scripts from elsewhere.
    app = FastAPI(title="ms_medqa", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    _add_routes(app, service)
    if not page:
        _tell_of_page(app)
    app.add_exception_handler(ApiError, _tell_api_error)
    app.add_exception_handler(HTTPException, _tell_http_error)
    app.add_exception_handler(RequestValidationError, _tell_validation_error)
    app.add_exception_handler(ClientGone, _tell_nobody)
    app.add_exception_handler(ClientDisconnect, _tell_nobody)
    app.add_exception_handler(Exception, _tell_other_error)
    settings = service.settings
    inner: ASGIApp = app
    if page:
        inner = PageRoutes(app, load_page()(service), service)
    outer: ASGIApp = Gate(inner, key, LOOPBACK_NAMES | {settings.host.lower()}, serves if page else None)
    if settings.cors_origins:
        # Outside the gate: what a browser asks beforehand carries no key.
        outer = CORSMiddleware(
            outer,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            # OpenAI's client has a dozen of its own. They guard nothing: a key is sent only by who knows it.
            allow_headers=["*"],
            expose_headers=["X-Medical-Disclaimer", "Retry-After", "X-Should-Retry"],
        )
    return Front(outer, service.metrics)


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.api_route("/health", methods=["GET", "HEAD"], include_in_schema=False)
    async def health() -> Response:
        ready = service.ready
        body = {"status": "ok" if ready else "stopping", "ready": ready, "model": next(iter(service.models))}
        return JSONResponse(body, status_code=200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse(
            {"object": "list", "data": [_describe(service, model) for model in service.models.values()]}
        )

    # A name may hold slashes, as those of model hubs do.
    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        return JSONResponse(_describe(service, service.model(name)))

    @app.post("/v1/chat/completions", openapi_extra=_body_schema(ChatBody))
    async def chat_completions(request: Request) -> Response:
        return await _respond(request, service, ChatBody, intake.chat)

    @app.post("/v1/completions", openapi_extra=_body_schema(CompletionBody))
    async def completions(request: Request) -> Response:
        return await _respond(request, service, CompletionBody, intake.completion)


def _tell_of_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def no_page() -> Response:
        raise ApiError(404, f"there is no page here: {INSTALL}, and serve.page must not be false")


async def _respond(
    request: Request, service: Service, kind: type[_Body], begin: Callable[..., Awaitable[Follower]]
) -> Response:
    began, settings = time.monotonic(), service.settings
    until = began + settings.request_seconds
    service.check_open()
    late = ApiError(408, "the request's body did not arrive in time")
    data = await intake.while_open(service, read_body(request, settings.max_body_bytes), until, late)
    with Places(service.worker) as places:

        async def understood() -> tuple[_Body, Follower]:
            places.take(1)
            read = partial(_understood, kind, data, settings.max_messages)
            body = await service.threads.run_long(len(data), read)
            return body, await begin(service, body, places, began)

        body, follower = await intake.while_open(service, understood(), until, service.late(), request.receive)
        await while_connected(request.receive, follower.accept())
    return StreamedResponse(follower, body.usage_in_stream) if body.stream else WholeResponse(follower)


def _understood(kind: type[_Body], data: bytes, max_messages: int) -> _Body:
    return check_body(kind, parse_json(data), max_messages)


def _describe(service: Service, model: ServedModel) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": service.created, "owned_by": "ms_medqa"}


def _body_schema(kind: type[GenerationBody]) -> dict[str, Any]:
    # Written out whole: references would point into a place that this schema does not have.
    fields = {name: {"description": "see OpenAI's reference"} for name in kind.model_fields}
    schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _tell_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _tell_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "there is no such route", 405: "the route does not take this method"}
    message = messages.get(error.status_code, str(error.detail))
    return error_response(ApiError(error.status_code, message, headers=error.headers))


async def _tell_validation_error(request: Request, error: Exception) -> Response:
    return error_response(ApiError(400, "the request is not valid"))


async def _tell_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


async def _tell_other_error(request: Request, error: Exception) -> Response:
    return error_response(internal())
