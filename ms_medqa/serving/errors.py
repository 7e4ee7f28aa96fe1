"""The errors of the interface, in OpenAI's shape."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from typing import Any

from ms_medqa.config.errors import RunError, UserError

log = logging.getLogger("ms_medqa.serving")

# Type and code of an error that was raised with its status alone.
_TYPES = {
    400: ("invalid_request_error", None),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("timeout_error", "timeout"),
    413: ("invalid_request_error", "body_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    429: ("rate_limit_error", "queue_full"),
    503: ("server_error", "stopping"),
    504: ("timeout_error", "timeout"),
}


class ApiError(Exception):
    """An error that the client is told.

    Args:
        status: of HTTP.
        message: what is wrong; without anything of the server's inside.
        param: the field at fault.
        code: short name for programs; by default that of the status.
        headers: further headers of the response.
        numbers: those of the message, by name, for who words it otherwise.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.type, default = _TYPES.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
        self.code = code or default
        self.headers = dict(headers or {})
        self.numbers = dict(numbers or {})

    def to_dict(self) -> dict[str, Any]:
        """The body of the response."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def to_json(self) -> str:
        """The body as text, in ASCII."""
        return json.dumps(self.to_dict())


def invalid(message: str, param: str | None = None, code: str | None = None, **numbers: int) -> ApiError:
    """A fault of the request's body."""
    return ApiError(400, message, param=param, code=code, numbers=numbers)


def internal() -> ApiError:
    """A fault of the server; what it was is in the log."""
    return ApiError(500, "the server failed to make this answer; its log says why", code="internal_error")


def log_failure(what: str, error: Exception) -> None:
    """Write down that something failed: what an error of the project's own says, and where any other came up.

    What others say may hold a part of a text.
    """
    if isinstance(error, (UserError, RunError)):
        log.error("%s: %s", what, error)
        return
    trace = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s: %s\n%s", what, type(error).__name__, trace)


def stopping() -> ApiError:
    """The server is going down."""
    return ApiError(503, "the server is stopping", headers={"Retry-After": "10"})
