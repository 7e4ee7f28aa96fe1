"""The page of a service as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from pathlib import Path

# Gradio looks at these while it is imported and made: nothing is told to anybody, whatever the environment says, and no
# statistics are kept, which would be counted anew for each click.
os.environ |= {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(2**62),
}

import gradio as gr
import gradio.queueing
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from ms_medqa.serving.errors import log_failure
from ms_medqa.serving.page.handlers import connect
from ms_medqa.serving.page.layout import draw
from ms_medqa.serving.page.visits import MOST
from ms_medqa.serving.service import Service

log = logging.getLogger("ms_medqa.serving")
_HERE = Path(__file__).parent
# Beside questions, for the clicks that take no row.
_CLICKS = 64
_FONTS = ("system-ui", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "WenQuanYi Zen Hei", "sans-serif")
_STYLE = """
#head { align-items: center; }
#disclaimer { position: fixed; inset: auto 0 0 0; z-index: 50; padding: 0.5em 2em; background: #fff3cd; }
#disclaimer, #disclaimer * { color: #533f03; }
#disclaimer p { margin: 0; }
.gradio-container { padding-bottom: 5em; }
#answers .message { white-space: normal; }
#answers .md { white-space: pre-wrap; }
#answers .icon-button-wrapper { display: none; }
#status { min-height: 1.6em; }
"""


class _Traces:
    """Stands for the module with which Gradio prints what fails, and with it the values that a call has brought."""

    @staticmethod
    def print_exc() -> None:
        """Write down a failure of the page's own functions; of any other the caller's values are the cause."""
        error = sys.exc_info()[1]
        if not isinstance(error, Exception):
            return
        if any(Path(frame.filename).parent == _HERE for frame in traceback.extract_tb(error.__traceback__)):
            log_failure("a function of the page failed", error)
        else:
            log.warning("a call of the page was refused: %s", type(error).__name__)


gradio.queueing.traceback = _Traces


class Page:
    """Gradio's application, which starts with the first request: the server has no lifespan events.

    Args:
        service: its worker has been started.

    Attributes:
        inputs: of each function that a page calls, by its number, how many values it takes.
    """

    def __init__(self, service: Service) -> None:
        with gr.Blocks(title="ms_medqa", analytics_enabled=False, fill_width=True) as blocks:
            positions = min(model.positions for model in service.models.values())
            page = draw(list(service.models), positions, service.defaults, service.settings)
            self.leave = connect(page, blocks, service).leave
        # Never reached: `Visits` says what goes, since Gradio would forget an open page like any.
        blocks.state_session_capacity = 2 * MOST
        # Gradio lets wait what goes beyond; it is the worker that says how many may.
        most = blocks.max_threads = service.worker.capacity + _CLICKS
        blocks.queue(default_concurrency_limit=None, api_open=False, max_size=most)
        self.inputs = {number: len(function.inputs) for number, function in blocks.fns.items()}
        self._blocks = blocks
        self._cleaning: set[asyncio.Task[None]] = set()
        self._app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        gr.mount_gradio_app(
            self._app,
            blocks,
            path="/",
            theme=gr.themes.Default(font=_FONTS, font_mono=("ui-monospace", "monospace")),
            css=_STYLE,
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
        )
        self._over = service.over
        self._started = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._life is None:
            self._life = asyncio.ensure_future(self._live())
        await self._started.wait()
        await self._app(scope, receive, send)

    def knows(self, name: str) -> bool:
        """There is something for a page to fetch, or has been; of others Gradio makes a failure."""
        return name in self._blocks._queue.pending_messages_per_session

    def drop(self, name: str) -> None:
        """Throw away what waits for a page to be fetched; only where it fetches nothing."""
        queue = self._blocks._queue
        queue.pending_messages_per_session.pop(name, None)
        queue.pending_event_ids_session.pop(name, None)
        cleaning = asyncio.ensure_future(queue.clean_events(session_hash=name))
        self._cleaning.add(cleaning)
        cleaning.add_done_callback(self._cleaning.discard)
        self.settle(name)

    def settle(self, name: str) -> None:
        """Throw away the last values of a page's parts, which Gradio keeps to load it anew elsewhere."""
        state = self._blocks.state_holder.session_data.get(name)
        if state is not None:
            state.config_values.clear()

    def forget(self, name: str) -> None:
        """Throw away all that is held for a page, its dialogues too."""
        self.drop(name)
        holder = self._blocks.state_holder
        holder.session_data.pop(name, None)
        holder.time_last_used.pop(name, None)

    async def _live(self) -> None:
        # In one task from beginning to end, as what Gradio starts here asks for.
        try:
            async with self._app.router.lifespan_context(self._app):
                self._started.set()
                await self._over.wait()
        finally:
            # Where it did not start, requests get errors and do not wait.
            self._started.set()
