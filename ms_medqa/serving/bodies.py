"""What a request may hold. Types are strict: the text "1" is no number, and `true` is none either."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ms_medqa.serving.errors import ApiError, invalid

MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_LABELS = 16
_Body = TypeVar("_Body", bound="GenerationBody")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_one_unknown(cls, values: Any) -> Any:
        # Of the errors that a hundred thousand unknown fields would make, one is told.
        if not isinstance(values, dict):
            return values
        known = {name: value for name, value in values.items() if name in cls.model_fields}
        unknown = next((name for name in values if name not in known), None)
        return known if unknown is None else known | {unknown: values[unknown]}


def _stops(value: Any) -> list[str] | None:
    if value is None:
        return None
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError("must be a text or a list of texts")
    if len(stops) > MAX_STOPS:
        raise ValueError(f"at most {MAX_STOPS} texts")
    if not all(0 < len(stop) <= MAX_STOP_LENGTH for stop in stops):
        raise ValueError(f"each text must have 1 to {MAX_STOP_LENGTH} characters")
    return stops


def _content(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a text or a list of text parts")
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError("only parts of type text are supported")
    return "".join(part["text"] for part in value)


def _prompts(value: Any) -> list[str]:
    prompts = [value] if isinstance(value, str) else value
    if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError("must be a text or a list of texts")
    return prompts


def _labels(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MAX_LABELS:
        raise ValueError(f"at most {MAX_LABELS} labels")
    return value


def _only(*harmless: Any) -> BeforeValidator:
    """Take a field that is not supported, as long as its value changes nothing."""

    def check(value: Any) -> Any:
        # Types are compared, because to Python `false` equals 0.
        if any(type(value) is type(other) and value == other for other in (None, *harmless)):
            return value
        raise ValueError("is not supported")

    return BeforeValidator(check)


_Absent = Annotated[Any, _only([], {})]
_Zero = Annotated[Any, _only(0.0, 0)]
_Label = str | None


class Message(_Strict):
    """One message of a dialogue; most further fields are those of an answer that is handed back unchanged."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content)]
    # Who of several users or programs said it: no template has a place for that.
    name: _Label = None
    refusal: _Absent = None
    annotations: _Absent = None
    audio: _Absent = None
    function_call: _Absent = None
    tool_calls: _Absent = None


class StreamOptions(_Strict):
    """What a stream holds beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, _only(False)] = None


class GenerationBody(_Strict):
    """The fields that both endpoints have."""

    # Where less than `max_tokens` fits behind the prompt: an error, or an answer of what fits.
    limit_must_fit: ClassVar[bool] = True

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    stop: Annotated[list[str] | None, BeforeValidator(_stops)] = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    no_repeat_ngram_size: int | None = Field(None, ge=0, le=100)

    frequency_penalty: _Zero = None
    presence_penalty: _Zero = None
    logit_bias: _Absent = None
    # Labels for the caller's own books.
    user: _Label = None
    safety_identifier: _Label = None
    prompt_cache_key: _Label = None

    @property
    def usage_in_stream(self) -> bool:
        """A last chunk tells the tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatBody(GenerationBody):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    context: str | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    tools: _Absent = None
    tool_choice: Annotated[Any, _only("none", "auto")] = None
    parallel_tool_calls: bool | None = None
    functions: _Absent = None
    function_call: Annotated[Any, _only("none", "auto")] = None
    response_format: Annotated[Any, _only({"type": "text"})] = None
    modalities: Annotated[Any, _only(["text"])] = None
    audio: _Absent = None
    prediction: _Absent = None
    reasoning_effort: _Absent = None
    verbosity: _Absent = None
    web_search_options: Annotated[Any, _only()] = None
    service_tier: Annotated[Any, _only("auto", "default")] = None
    store: Annotated[Any, _only(False)] = None
    metadata: Annotated[dict[str, str] | None, BeforeValidator(_labels)] = None


class CompletionBody(GenerationBody):
    """`POST /v1/completions`."""

    prompt: Annotated[list[str], BeforeValidator(_prompts)]
    logprobs: int | None = Field(None, ge=0, le=20)

    best_of: Annotated[Any, _only(1)] = None
    echo: Annotated[Any, _only(False)] = None
    suffix: Annotated[Any, _only("")] = None


def check_body(kind: type[_Body], values: dict[str, Any], max_messages: int) -> _Body:
    """The request's body as an object.

    Args:
        kind: of request.
        values: what was sent.
        max_messages: of a dialogue.

    Raises:
        ApiError: 400 that names the first field at fault.
    """
    messages = values.get("messages")
    # First of all: each message takes time by itself, and so does each fault of one.
    if isinstance(messages, list) and len(messages) > max_messages:
        raise invalid(f"more than {max_messages} messages", "messages", "too_many_messages", most=max_messages)
    try:
        body = kind.model_validate(values)
    except ValidationError as error:
        raise _explain(error) from None
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options goes with stream: true", "stream_options")
    return body


def _explain(error: ValidationError) -> ApiError:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    name = ""
    for part in first["loc"]:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    name = name[:100]
    if first["type"] == "extra_forbidden":
        return invalid(f"unknown field: {name}", name, "unknown_parameter")
    if first["type"] == "missing":
        return invalid(f"{name} is missing", name, "missing_required_parameter")
    message = first["msg"].removeprefix("Value error, ")
    return invalid(f"{name}: {message[0].lower()}{message[1:]}", name, "invalid_value")
