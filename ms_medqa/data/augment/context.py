"""A context with a lead-in: the one change to a context that cannot make its record false."""

from __future__ import annotations

from ms_medqa.data.augment.boundary import HAN

# They say that source text follows, and nothing about it.
_CHINESE = ("资料：", "背景资料：", "参考资料：", "相关资料如下：")
_ENGLISH = ("Source: ", "Background: ", "Reference text: ", "From the sources: ")


def lead_ins(context: str) -> list[str]:
    """The context with each neutral lead-in before it; none for an empty context or one that has such a lead-in.

    It makes a model less dependent on how sources are handed to it. All other known expansions were left out:
    sentences in another order break references (该药, it) and sequences of steps, sentences from other records may
    contradict the answer, and anything taken from the answer shows it to the model in the prompt.
    """
    text = context.strip()
    leads = _CHINESE if HAN.search(text) else _ENGLISH
    if not text or text.startswith(tuple(lead.strip() for lead in (*_CHINESE, *_ENGLISH))):
        return []
    return [lead + text for lead in leads]
