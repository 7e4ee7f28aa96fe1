"""What happens on the page. Each open page has its own dialogues; Gradio keeps them by a name that only it knows."""

from __future__ import annotations

import contextlib
import html
from collections.abc import AsyncIterator, Mapping
from typing import Any

import gradio as gr

from ms_medqa.generation.sampling import draw_seed
from ms_medqa.serving.page.layout import SIDES, Layout
from ms_medqa.serving.page.run import Answer, Rounds, Run, Runs
from ms_medqa.serving.page.texts import ENGLISH, LANGUAGES, Texts, preferred
from ms_medqa.serving.service import Service

# Few enough digits to write down.
_SEED_BITS = 31
_SEED_DIGITS = 20

Dialogues = Mapping[str, Rounds]
Values = list[Any]


def connect(page: Layout, blocks: gr.Blocks, service: Service) -> Handlers:
    """Tie what a person does on the page to what happens.

    Args:
        page: its parts.
        blocks: that hold them.
        service: answers.
    """
    handlers = Handlers(page, service)
    # Gradio offers each function to programs, too; theirs are the routes of the interface.
    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    shown = [*page.chats, page.status]
    asked = [page.language, page.dialogues, *page.models, page.question, page.context, *page.settings.values()]
    gr.on(
        [page.ask.click, page.question.submit],
        handlers.ask,
        asked,
        [*shown, page.question, page.dialogues, page.stop, page.ask, page.clear, *page.models],
        trigger_mode="once",
        **hidden,
    )
    page.stop.click(handlers.stop, None, None, **hidden)
    page.clear.click(handlers.clear, None, [*shown, page.dialogues], **hidden)
    chosen = [page.dialogues, *page.models]
    for model in page.models:
        model.input(handlers.choose, chosen, shown, **hidden)
    worded = [part for part, _ in page.worded]
    page.language.input(handlers.reword, page.language, [*worded, page.status], **hidden)
    blocks.load(handlers.welcome, None, [*worded, page.status], **hidden)
    return handlers


class Handlers:
    """The functions that Gradio calls, with the values of the page's parts in the order of `connect`."""

    def __init__(self, page: Layout, service: Service) -> None:
        self._page = page
        self._service = service
        self._runs = Runs()

    async def ask(
        self,
        request: gr.Request,
        language: str | None,
        dialogues: Dialogues,
        model: str,
        other: str,
        question: str | None,
        context: str | None,
        *settings: Any,
    ) -> AsyncIterator[Values]:
        """Ask one model or both, and show the answers as they grow."""
        texts, models = _texts(language), _chosen(model, other)
        if not (question or "").strip():
            yield [*_untouched(SIDES), texts.no_question, *_untouched(2), *_busy(False)]
            return
        fields = dict(zip(self._page.settings, settings, strict=True))
        fields["seed"] = _seed(fields["seed"])
        rounds = [dialogues.get(name, ()) for name in models]
        run = Run(
            self._service,
            question,
            list(zip(models, rounds, strict=True)),
            {**fields, "context": context or None},
        )
        before = [_messages(earlier) for earlier in rounds]
        begun = [gr.update(value=""), gr.skip(), *_busy(True)]
        answers: tuple[Answer, ...] = ()
        # Gradio closes this generator where its page has gone, and a generator within does not notice by itself.
        async with contextlib.aclosing(run.pictures()) as pictures, self._runs.running(request.session_hash, run):
            async for answers in pictures:
                chats = [
                    [*messages, *_messages(((question, _spoken(answer, texts)),))]
                    for messages, answer in zip(before, answers, strict=True)
                ]
                yield [*chats, *_untouched(SIDES - len(chats)), texts.running, *begun]
                begun = _untouched(len(begun))
        # What failed before its first word is to be asked again, not to be remembered.
        kept = {
            name: (*earlier, (question, answer.text)) if answer.text else earlier
            for name, earlier, answer in zip(models, rounds, answers, strict=True)
        }
        again = gr.skip() if any(answer.text for answer in answers) else gr.update(value=question)
        outcome = _outcome(answers, texts).format(seed=fields["seed"])
        yield [*_untouched(SIDES), outcome, again, {**dialogues, **kept}, *_busy(False)]

    async def stop(self, request: gr.Request) -> None:
        """End the answers that are being made for this page."""
        self.leave(request.session_hash or "")

    def leave(self, name: str) -> None:
        """The same where a page is closed."""
        self._runs.stop(name)

    async def clear(self) -> Values:
        """Forget the dialogues."""
        return [*([] for _ in range(SIDES)), "", {}]

    async def choose(self, dialogues: Dialogues, model: str, other: str) -> Values:
        """Show the dialogues of the models that have been chosen."""
        models = _chosen(model, other)
        updates = [gr.update(value=_messages(dialogues.get(name, ())), label=name, visible=True) for name in models]
        return [*updates, *(gr.update(visible=False) for _ in range(SIDES - len(models))), ""]

    async def reword(self, language: str | None) -> Values:
        """Say everything in another language."""
        said = {part: wording(_texts(language)) for part, wording in self._page.worded}
        said[self._page.language]["value"] = language
        return [*(gr.update(**words) for words in said.values()), ""]

    async def welcome(self, request: gr.Request) -> Values:
        """Begin in the language that the browser asks for."""
        return await self.reword(preferred(request.headers.get("accept-language", "")))


def _texts(language: str | None) -> Texts:
    return LANGUAGES.get(language or "", ENGLISH)


def _chosen(model: str, other: str) -> list[str]:
    return [model, other] if other and other != model else [model]


def _seed(written: str | None) -> int | str:
    """The seed that a person has written, or a fresh one; what is no number is left for the request's own checks."""
    written = (written or "").strip()
    if not written:
        return draw_seed() % 2**_SEED_BITS
    return int(written) if written.isdecimal() and len(written) <= _SEED_DIGITS else written


def _messages(rounds: Rounds) -> list[dict[str, Any]]:
    # Gradio takes a text for HTML, in which a value such as "<5.6" would be lost; and it strips the indentation of one
    # that is not a part of type text.
    return [
        {"role": role, "content": [{"type": "text", "text": html.escape(text, quote=False)}]}
        for question, answer in rounds
        for role, text in (("user", question), ("assistant", answer))
    ]


def _spoken(answer: Answer, texts: Texts) -> str:
    if answer.error is None:
        return answer.text or "…"
    return "\n\n".join(filter(None, [answer.text, f"⚠ {texts.error(answer.error)}"]))


def _outcome(answers: tuple[Answer, ...], texts: Texts) -> str:
    if any(answer.error for answer in answers):
        return texts.failed
    finishes = {answer.finish for answer in answers}
    return texts.stopped if "stopped" in finishes else texts.cut if "length" in finishes else texts.done


def _busy(busy: bool) -> list[Any]:
    """Only the first button of these is for a time in which answers are made: the answers are the chosen models'."""
    return [gr.update(interactive=busy), *(gr.update(interactive=not busy) for _ in range(2 + SIDES))]


def _untouched(count: int) -> list[Any]:
    return [gr.skip() for _ in range(count)]
