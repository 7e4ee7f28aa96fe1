"""What the page says, in each of its languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ms_medqa.serving.errors import ApiError


@dataclass(frozen=True, slots=True)
class Texts:
    """One language.

    Attributes:
        name: of the language, in itself.
        settings: label and meaning of each field of a request.
        errors: what is said instead of the server's own words, by the error's code; with the error's numbers by their
            names, and `{setting}`, the label of the field at fault.
        other_error: with `{message}`, the server's own words, which are English.
    """

    name: str
    title: str
    disclaimer: str
    language: str
    model: str
    compare: str
    compare_with_none: str
    question: str
    question_hint: str
    context: str
    context_hint: str
    ask: str
    stop: str
    clear: str
    sampling: str
    empty: str
    no_question: str
    running: str
    done: str
    cut: str
    stopped: str
    failed: str
    settings: Mapping[str, tuple[str, str]]
    errors: Mapping[str, str]
    other_error: str

    def error(self, error: ApiError) -> str:
        """What a person is told of an error."""
        field = error.param or ""
        setting, _ = self.settings.get(field, (field, ""))
        said = self.errors.get(error.code or "", self.other_error)
        return said.format(message=error.message.rstrip("."), setting=setting, **error.numbers)


ENGLISH = Texts(
    name="English",
    title="Medical question answering",
    disclaimer="Answers come from a language model and may be wrong. They are for reference only and do not replace "
    "a doctor's diagnosis. In an emergency, call for help at once.",
    language="Language",
    model="Model",
    compare="Compare with",
    compare_with_none="(none)",
    question="Question",
    question_hint="What may a patient with high blood pressure eat?",
    context="Medical knowledge for the answer (optional)",
    context_hint="A text that the answer may rest on",
    ask="Ask",
    stop="Stop",
    clear="New dialogue",
    sampling="Sampling",
    empty="The answer appears here.",
    no_question="Please write a question.",
    running="Answering …",
    done="Done. Seed: {seed}",
    cut="The answer was cut at its longest length. Seed: {seed}",
    stopped="Stopped.",
    failed="There is no whole answer: see the message in the dialogue.",
    settings={
        "temperature": ("Temperature", "0 always takes the likeliest token"),
        "top_p": ("Top-p", "smallest set of tokens whose probability reaches this"),
        "top_k": ("Top-k", "only so many of the likeliest tokens; 0: all"),
        "min_p": ("Min-p", "only tokens this many times as likely as the likeliest; 0: all"),
        "repetition_penalty": ("Repetition penalty", "above 1 makes repeated tokens less likely"),
        "max_tokens": ("Longest answer", "in tokens"),
        "seed": ("Seed", "repeats an answer; empty: a new draw each time"),
    },
    errors={
        "queue_full": "Too many questions are waiting. Please try again in a moment.",
        "context_length_exceeded": "The question with its dialogue is too long: it has {tokens} tokens, and at most "
        "{most} are taken.",
        "too_many_messages": "The dialogue has more than {most} messages. Please begin a new one.",
        "timeout": "The answer took too long and was broken off.",
        "stopping": "The server is stopping.",
        "internal_error": "The server failed to make this answer.",
    },
    other_error="The question cannot be answered: {message}.",
)
CHINESE = Texts(
    name="中文",
    title="医学问答",
    disclaimer="回答由语言模型生成，可能有误，仅供参考，不能代替医生的诊断。紧急情况请立即就医。",
    language="语言",
    model="模型",
    compare="对比模型",
    compare_with_none="（不对比）",
    question="问题",
    question_hint="高血压患者的饮食注意事项有哪些？",
    context="供回答参考的医学知识（可不填）",
    context_hint="回答可以依据的一段文字",
    ask="提问",
    stop="停止",
    clear="新对话",
    sampling="采样设置",
    empty="回答将显示在这里。",
    no_question="请先输入问题。",
    running="正在回答……",
    done="回答完毕。随机种子：{seed}",
    cut="回答达到最大长度，已被截断。随机种子：{seed}",
    stopped="已停止。",
    failed="没有得到完整的回答，原因见对话中的提示。",
    settings={
        "temperature": ("温度", "为 0 时总是取概率最大的词元"),
        "top_p": ("Top-p", "只保留累计概率达到该值的最小词元集合"),
        "top_k": ("Top-k", "只保留概率最大的若干词元；0 为不限"),
        "min_p": ("Min-p", "只保留概率不低于最大概率该倍数的词元；0 为不限"),
        "repetition_penalty": ("重复惩罚", "大于 1 时降低重复词元的概率"),
        "max_tokens": ("最大长度", "以词元计"),
        "seed": ("随机种子", "相同种子可重现回答；留空则每次随机"),
    },
    errors={
        "queue_full": "排队的问题过多，请稍后再试。",
        "context_length_exceeded": "问题连同对话过长：共 {tokens} 个词元，最多 {most} 个。",
        "too_many_messages": "对话已超过 {most} 条消息，请开始新对话。",
        "invalid_value": "“{setting}”的值不可用。",
        "timeout": "回答用时过长，已中断。",
        "stopping": "服务正在停止。",
        "internal_error": "服务端出错，未能生成回答。",
    },
    other_error="无法回答该问题（{message}）。",
)
LANGUAGES: Mapping[str, Texts] = {"zh": CHINESE, "en": ENGLISH}


def preferred(accept_language: str) -> str:
    """The language of the page for a browser's header `Accept-Language`: Chinese where it comes before English."""
    weighed: list[tuple[float, int, str]] = []
    for place, entry in enumerate(accept_language.split(",")):
        name, _, weight = entry.strip().partition(";")
        try:
            likes = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            continue
        if (code := name.partition("-")[0].lower()) in LANGUAGES and likes > 0:
            weighed.append((-likes, place, code))
    return min(weighed)[2] if weighed else "en"
