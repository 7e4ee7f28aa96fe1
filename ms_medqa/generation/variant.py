"""`Variant`: how a model is asked, as it is or with one of the adapters beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.data.prompt import FILE_NAME as PROMPT_FILE
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer, has_tokenizer
from ms_medqa.models.decoder import CausalLM

DEFAULT_PROMPT = "medqa"


@dataclass(frozen=True, slots=True)
class Variant:
    """How a model is asked, as it is or with one of the adapters beside it.

    Attributes:
        adapter: its name, None for the model as it is.
        prompt: renders questions; its tokenizer is that of prompt and answer.
        end_ids: tokens that end an answer.
    """

    adapter: str | None
    prompt: Prompt
    end_ids: frozenset[int]

    @classmethod
    def of(
        cls,
        model: CausalLM,
        adapter: str | None,
        folders: Sequence[str | Path | None],
        tokenizer: Tokenizer | None = None,
        prompt: Prompt | None = None,
    ) -> Variant:
        """What the first of `folders` that has it says.

        Args:
            model: the base model.
            adapter: see above.
            folders: the adapter's, then the model's; None where there is none.
            tokenizer, prompt: replace those of the folders.

        Raises:
            UserError: a tokenizer is missing or not the model's, or a prompt cannot be read.
        """
        found = [user_path(folder) for folder in folders if folder is not None]
        tokenizer = tokenizer or find_tokenizer(model, found)
        prompt = prompt or find_prompt(tokenizer, found)
        return cls(adapter, prompt, frozenset(prompt.stop_token_ids) | frozenset(model.config.eos_token_ids))

    @property
    def tokenizer(self) -> Tokenizer:
        """Of prompt and answer."""
        return self.prompt.tokenizer


def find_tokenizer(model: CausalLM, folders: Sequence[Path]) -> Tokenizer:
    """The first tokenizer of `folders` (adapter, then model), checked against the model's vocabulary and tokenizer."""
    if not folders:
        raise UserError("a model that was made in memory has no tokenizer", "pass tokenizer=Tokenizer.load(folder)")
    # An adapter that another tool saved often comes without a tokenizer.
    folder = next(filter(has_tokenizer, folders), folders[-1])
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}",
            "use the tokenizer that the model was trained with",
        )
    _check_same_ids(tokenizer, folders[-1])
    return tokenizer


def _check_same_ids(tokenizer: Tokenizer, model_folder: Path) -> None:
    """Refuse an adapter's tokenizer whose ids are not the model's; more tokens and another end token are its own."""
    if tokenizer.folder == model_folder or not has_tokenizer(model_folder):
        return
    other = Tokenizer.load(model_folder)
    if other.fingerprint == tokenizer.fingerprint:
        return
    for token_id in range(other.vocab_size):
        token = other.id_to_token(token_id)
        if token is not None and tokenizer.token_to_id(token) != token_id:
            raise UserError(
                f"adapter {tokenizer.folder} was made for another model",
                f"its tokenizer does not give {token!r} the id {token_id} as the model's does",
            )


def find_prompt(tokenizer: Tokenizer, folders: Sequence[Path]) -> Prompt:
    """The prompt saved in the first of `folders` that has one, else `medqa`."""
    for folder in folders:
        if (folder / PROMPT_FILE).is_file():
            return Prompt.load(folder, tokenizer)
    return Prompt.named(DEFAULT_PROMPT, tokenizer)
