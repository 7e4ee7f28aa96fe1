"""What stands on the page, as Gradio's blocks. What happens there is in `handlers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gradio as gr
from gradio.blocks import Block

from ms_medqa.config.schema import GenerateSection
from ms_medqa.config.serve_section import ServeSection
from ms_medqa.serving.page.texts import ENGLISH, LANGUAGES, Texts

# Of one question, each to another model.
SIDES = 2
Wording = Callable[[Texts], dict[str, Any]]
_Part = TypeVar("_Part", bound=Block)


@dataclass
class Layout:
    """The parts of the page.

    Attributes:
        worded: each part that has words, and what they are in a language.
        models: choosers of each side's model; the second may have none.
        chats: the dialogue of each side.
        settings: by the name of the request's field.
        dialogues: kept by the server for each open page, by model.
    """

    worded: list[tuple[Block, Wording]] = field(default_factory=list)
    language: gr.Radio = field(init=False)
    models: list[gr.Dropdown] = field(init=False)
    chats: list[gr.Chatbot] = field(init=False)
    status: gr.Markdown = field(init=False)
    question: gr.Textbox = field(init=False)
    context: gr.Textbox = field(init=False)
    ask: gr.Button = field(init=False)
    stop: gr.Button = field(init=False)
    clear: gr.Button = field(init=False)
    settings: dict[str, Block] = field(init=False)
    dialogues: gr.State = field(init=False)

    def part(self, kind: Callable[..., _Part], wording: Wording, **options: Any) -> _Part:
        """Put a part that has words onto the page."""
        part = kind(**{**wording(ENGLISH), **options})
        self.worded.append((part, wording))
        return part


def draw(names: list[str], positions: int, defaults: GenerateSection, limits: ServeSection) -> Layout:
    """Put all parts onto the page that is being made.

    Args:
        names: of the models, the base model first.
        positions: tokens of prompt and answer together that each of them holds.
        defaults: of the settings.
        limits: of the server.
    """
    page = Layout()
    with gr.Row(elem_id="head"):
        page.part(gr.Markdown, lambda t: {"value": f"# {t.title}"}, elem_id="title")
        page.language = page.part(
            gr.Radio,
            lambda t: {"label": t.language},
            choices=[(texts.name, code) for code, texts in LANGUAGES.items()],
            value="en",
            elem_id="language",
            scale=0,
            min_width=220,
        )
    page.part(gr.Markdown, lambda t: {"value": t.disclaimer}, elem_id="disclaimer")
    _draw_models(page, names)
    page.status = gr.Markdown(elem_id="status")
    page.question = page.part(
        gr.Textbox,
        lambda t: {"label": t.question, "placeholder": t.question_hint},
        lines=2,
        max_lines=10,
        elem_id="question",
    )
    with gr.Row():
        page.ask = page.part(gr.Button, lambda t: {"value": t.ask}, variant="primary", elem_id="ask")
        page.stop = page.part(gr.Button, lambda t: {"value": t.stop}, interactive=False, elem_id="stop")
        page.clear = page.part(gr.Button, lambda t: {"value": t.clear}, elem_id="clear")
    page.context = page.part(
        gr.Textbox,
        lambda t: {"label": t.context, "placeholder": t.context_hint},
        lines=2,
        max_lines=10,
        elem_id="context",
    )
    with page.part(gr.Accordion, lambda t: {"label": t.sampling}, open=False, elem_id="sampling"):
        # Before an answer stands one token at least.
        _draw_settings(page, defaults, longest=min(limits.max_tokens, positions - 1))
    page.dialogues = gr.State({})
    return page


def _draw_models(page: Layout, names: list[str]) -> None:
    # An adapter is what the server was started for; the base model is there to compare with.
    first = names[min(1, len(names) - 1)]
    with gr.Row(visible=len(names) > 1):
        page.models = [
            page.part(gr.Dropdown, lambda t: {"label": t.model}, choices=names, value=first, elem_id="model-0"),
            page.part(
                gr.Dropdown,
                lambda t: {"label": t.compare, "choices": [(t.compare_with_none, ""), *names]},
                value="",
                elem_id="model-1",
            ),
        ]
    with gr.Row(elem_id="answers", equal_height=True):
        page.chats = [
            page.part(
                gr.Chatbot,
                lambda t: {"placeholder": t.empty},
                label=first,
                visible=side == 0,
                height=380,
                # What a model writes is shown as it is: as Markdown it could hold links and pictures from anywhere.
                render_markdown=False,
                latex_delimiters=[],
                # The text that a button would copy is the escaped one.
                buttons=[],
                elem_id=f"chat-{side}",
            )
            for side in range(SIDES)
        ]


def _draw_settings(page: Layout, defaults: GenerateSection, longest: int) -> None:
    def setting(name: str, kind: Callable[..., Block], value: Any, **options: Any) -> None:
        page.settings[name] = page.part(
            kind,
            lambda t: dict(zip(("label", "info"), t.settings[name], strict=True)),
            value=value,
            elem_id=name,
            **options,
        )

    page.settings = {}
    # Gradio refuses each click where a slider is beyond its ends, and the server a penalty beyond these.
    penalty = min(max(defaults.repetition_penalty, 0.01), 100)
    lowest, highest = min(penalty, 0.5), max(penalty, 2)
    with gr.Row():
        setting("temperature", gr.Slider, min(defaults.temperature, 2), minimum=0, maximum=2, step=0.05)
        setting("top_p", gr.Slider, max(defaults.top_p, 0.01), minimum=0.01, maximum=1, step=0.01)
        setting("top_k", gr.Number, defaults.top_k, minimum=0, precision=0)
    with gr.Row():
        setting("min_p", gr.Slider, defaults.min_p, minimum=0, maximum=1, step=0.01)
        setting("repetition_penalty", gr.Slider, penalty, minimum=lowest, maximum=highest, step=0.05)
        setting("max_tokens", gr.Slider, min(defaults.max_new_tokens, longest), minimum=1, maximum=longest, step=1)
        # A box for numbers would show nothing as 0.
        setting("seed", gr.Textbox, "" if defaults.seed is None else str(defaults.seed), max_lines=1)
