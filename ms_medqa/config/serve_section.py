"""The config's section `serve`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ms_medqa.config.section import Section


class ServeSection(Section):
    """The HTTP server. How answers are sampled where a request does not say is the section `generate`."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on; one that is not this machine's alone needs a key."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port; 0 takes a free one, which the line `serving …` tells.")
    model_name: str | None = Field(
        None, description="Name of the base model in requests; empty: the last part of its folder's path."
    )
    max_batch: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Answers that are made at the same time, each a row of the batch; `auto`: 32, 16 or 8, "
        "the largest whose keys and values fit into 2 GiB at full length, or else 8. Caches of fewer rows, for times "
        "with fewer requests, take up to as much again.",
    )
    warm_up: bool = Field(
        False,
        description="Compile all sizes of batches and prompts before the first request. No answer pauses for it later "
        "(unless a whole step fails); starting takes as long as it does, the caches take their whole memory from then "
        "on, and every step goes over their whole length.",
    )
    max_queue: int = Field(
        64, ge=0, description="Answers that may wait for a row; a request beyond that is told to come back (429)."
    )
    request_seconds: float = Field(300.0, gt=0, description="Longest time of a request, its wait included.")
    drain_seconds: float = Field(
        30.0, ge=0, description="After SIGTERM, time for running answers; what is not done by then is broken off."
    )
    max_body_bytes: int = Field(1_048_576, ge=1, description="Largest body of a request.")
    max_messages: int = Field(100, ge=1, description="Most messages of a dialogue.")
    max_prompt_tokens: int = Field(8192, ge=1, description="Longest prompt; the model's own limit holds as well.")
    max_tokens: int = Field(2048, ge=1, description="Longest answer that a request may ask for.")
    max_n: int = Field(8, ge=1, description="Most answers that one request may ask for.")
    cors_origins: list[str] = Field(
        default_factory=list,
        description="Origins whose pages a browser lets read answers, such as `https://example.org`; `*` is any.",
    )
    closing: str | None = Field(
        None, description="Sentence that is put behind every answer, after an empty line; empty: none."
    )
    page: bool | Literal["auto"] = Field(
        "auto",
        description="The web page at `/`; `auto`: where Gradio is installed (`pip install 'ms_medqa[web]'`).",
    )
    log_text: bool = Field(
        False, description="Write prompts and answers into the log: they may hold what patients have told."
    )

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            if origin != "*" and (not origin.startswith(("http://", "https://")) or origin.count("/") != 2):
                raise ValueError(f"{origin!r} is no origin, which is a scheme, a host and perhaps a port")
        return value

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        # To a socket an empty name is every address.
        if not value.strip():
            raise ValueError("input should name an address, such as 127.0.0.1")
        return value
