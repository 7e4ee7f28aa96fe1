"""The web page: its texts, its dialogues, and the routes of Gradio that it needs. Gradio is imported only here."""

from __future__ import annotations

import importlib.util
from typing import Literal

from ms_medqa.config.errors import UserError

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
