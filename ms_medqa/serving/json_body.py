"""A request's body: read up to a limit, and parsed without any of the things that JSON leaves open."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from starlette.requests import Request

from ms_medqa.serving.errors import ApiError, invalid

MAX_DEPTH = 32
_MAX_DIGITS = 20
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body of a request that brings JSON.

    Args:
        request: whose body has not been read.
        max_bytes: of the body, with or without a Content-Length.

    Raises:
        ApiError: 413 or 415.
        ClientDisconnect: the client has left.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "the content type must be application/json")
    error = ApiError(413, f"the request's body is larger than {max_bytes} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > max_bytes):
        raise error
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise error
    return bytes(body)


def parse_json(body: bytes) -> dict[str, Any]:
    """The object that `body` spells.

    Raises:
        ApiError: 400 for bad UTF-8 or JSON, another value than an object, NaN, infinities, numbers of very many digits,
            too deep a nesting, or half a surrogate pair.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8 text (byte {error.start})") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_whole, parse_float=_fraction)
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise invalid(f"the body is not valid JSON ({error.msg}, character {error.pos})") from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object")
    _check(value)
    return value


def _check(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and _HALF_CHARACTER.search(item):
                raise invalid("the body holds half a surrogate pair (such as \\ud83d alone), which is no character")
        if not below:
            return
        level = below
    raise _too_deep()


def _too_deep() -> ApiError:
    return invalid(f"the body is nested deeper than {MAX_DEPTH} levels")


def _refuse_constant(name: str) -> NoReturn:
    raise invalid(f"the body holds {name}, which is no JSON value")


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise invalid(f"the body holds a number of {len(digits)} digits")
    return int(digits)


def _fraction(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise invalid("the body holds a number that is too large")
    return value
