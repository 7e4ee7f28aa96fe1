"""What wraps Chinese statements into dialogues and paragraphs, whatever they are about."""

from __future__ import annotations

from dataclasses import dataclass

from ms_medqa.data.corpus import forms_disease, forms_drug, forms_exam, forms_first_aid
from ms_medqa.data.corpus.phrases import Forms


@dataclass(frozen=True, slots=True)
class Topic:
    """A general table with its forms.

    Attributes:
        table: name of the table.
        name: the field that names a record.
        forms: the table's forms.
        pronouns: what may stand for the name in the later sentences of a paragraph.
        alike: the field whose value two records of a comparison share; None compares neighbours in the table.
    """

    table: str
    name: str
    forms: Forms
    pronouns: tuple[str, ...]
    alike: str | None = None


TOPICS: tuple[Topic, ...] = (
    Topic("diseases", "name", forms_disease.FORMS, ("该病", "本病", "这种疾病"), "category"),
    Topic("drugs", "name", forms_drug.FORMS, ("该药", "此药", "这种药"), "drug_class"),
    Topic("exams", "name", forms_exam.FORMS, ("该检查", "此项检查", "这项检查")),
    Topic("first_aid", "situation", forms_first_aid.FORMS, ("这种情况", "上述情况")),
)

DIALOGUES: tuple[str, ...] = (
    "问：{question}\n答：{answer}",
    "问题：{question}\n解答：{answer}",
    "患者：{question}\n医生：{answer}",
    "家属：{question}\n医生：{answer}",
    "学生：{question}\n老师：{answer}",
    "居民：{question}\n社区医生：{answer}",
    "甲：{question}\n乙：{answer}",
    "患者咨询：{question}医生回答：{answer}",
    "咨询：{question}\n回复：{answer}",
    "提问：{question} 参考答案：{answer}",
    "{question}\n{answer}",
    "{question}{answer}",
    "有人问：“{question}”医生说：“{answer}”",
    "门诊常见问题：{question}{answer}",
    "义诊时，一位老人问道：{question}医生告诉他：{answer}",
    "健康热线收到的提问是：{question}接线医生的答复是：{answer}",
    "复习题：{question}\n要点：{answer}",
    "“{question}”这是很多人关心的问题。{answer}",
    "科普专栏｜{question}\n{answer}",
    "实习医生问：{question}带教老师回答：{answer}",
)

# What may stand before a later sentence of a paragraph; mostly nothing.
LINKS: tuple[str, ...] = ("", "", "", "", "", "此外，", "另外，", "同时，", "还要知道，")

CLOSINGS: tuple[str, ...] = (
    "",
    "",
    "",
    "",
    "具体情况请咨询医生。",
    "以上内容仅供科普参考。",
    "如有疑问，应及时就医。",
    "每个人的情况不同，应由医生判断。",
    "早发现、早处理，结果往往更好。",
)
