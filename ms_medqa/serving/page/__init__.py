"""The web page: its texts, its dialogues, and the routes of Gradio that it needs. Gradio is imported only here."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

from ms_medqa.config.errors import UserError

if TYPE_CHECKING:
    from ms_medqa.serving.page.mount import Page

INSTALL = "pip install 'ms_medqa[web]'"


def has_page(wish: bool | Literal["auto"]) -> bool:
    """The server has a page.

    Args:
        wish: `serve.page`; `auto` takes one where Gradio is installed.

    Raises:
        UserError: there must be one, and Gradio is not installed.
    """
    installed = importlib.util.find_spec("gradio") is not None
    if wish is True and not installed:
        raise UserError("serve.page = true: the page needs gradio", INSTALL)
    return installed if wish == "auto" else wish


def load_page() -> type[Page]:
    """What makes the page. Gradio takes seconds and memory, which a server without a page keeps.

    Raises:
        UserError: Gradio is installed, and does not work.
    """
    try:
        from ms_medqa.serving.page.mount import Page
    except Exception as error:
        # Whatever an installation's parts raise that do not fit together.
        raise UserError(
            f"the page cannot be made: {type(error).__name__}: {error}",
            f"mend the installation ({INSTALL}), or leave the page out: serve.page=false",
        ) from error
    return Page
