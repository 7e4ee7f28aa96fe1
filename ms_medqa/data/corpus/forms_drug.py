"""Chinese sentence forms for the table of drugs; in statements `{name}` may also be filled with 该药."""

from __future__ import annotations

from ms_medqa.data.corpus.phrases import Forms

STATEMENTS: dict[str, tuple[str, ...]] = {
    "drug_class": (
        "{name}属于{drug_class}。",
        "{name}是一种{drug_class}。",
        "从类别上看，{name}是{drug_class}。",
        "按药物分类，{name}归入{drug_class}。",
        "{name}的药物类别是{drug_class}。",
    ),
    "indications": (
        "{name}可用于{indications}。",
        "{name}的适应证有{indications}。",
        "{name}主要用于{indications}等情况。",
        "医生开{name}，常见的目的是{indications}。",
        "{name}的常见用途是{indications}。",
        "{indications:2}时，医生可能会考虑使用{name}。",
        "{name}在临床上用于{indications}，应遵医嘱使用。",
    ),
    "side_effects": (
        "{name}常见的不良反应有{side_effects}。",
        "使用{name}可能出现{side_effects}。",
        "{name}的副作用包括{side_effects}等。",
        "{side_effects}是{name}可能的不良反应，出现后应咨询医生。",
        "服用或使用{name}期间，要留意有没有{side_effects}。",
        "少数人用{name}后会出现{side_effects:2}，严重时应及时就医。",
        "{name}的不良反应因人而异，可见{side_effects}。",
    ),
    "cautions": (
        "使用{name}要注意：{cautions}。",
        "{name}的注意事项有{cautions}。",
        "用{name}之前应了解：{cautions}。",
        "关于{name}的用药提醒：{cautions}。",
        "为了安全使用{name}，请记住{cautions}。",
        "{name}不能随意使用，需注意{cautions}。",
        "医生和药师会提醒使用{name}的人：{cautions}。",
    ),
    "note": (
        "{name}的用药提示：{note}。",
        "使用{name}时还要记住，{note}。",
        "关于{name}，{note}。",
        "药师特别说明，{name}有一点要留心：{note}。",
    ),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    "drug_class": ("{name}属于什么药？", "{name}是哪一类药物？", "{name}是什么类型的药？"),
    "indications": (
        "{name}有什么作用？",
        "{name}用来治疗什么？",
        "什么情况下会用{name}？",
        "{name}的适应证是什么？",
        "医生为什么开{name}？",
    ),
    "side_effects": (
        "{name}有什么副作用？",
        "{name}的不良反应有哪些？",
        "用{name}会有哪些不舒服？",
        "用{name}以后可能出现什么反应？",
    ),
    "cautions": (
        "使用{name}要注意什么？",
        "{name}的注意事项有哪些？",
        "哪些人用{name}要小心？",
        "怎样安全地使用{name}？",
    ),
    "note": ("用{name}有什么特别提醒？", "关于{name}，药师会怎么交代？", "使用{name}还要知道什么？"),
}

TEXTS: tuple[str, ...] = (
    "药名：{name}\n类别：{drug_class}\n用途：{indications}\n不良反应：{side_effects}\n注意：{cautions}",
    "【{name}】{drug_class}。用于{indications}。可能出现{side_effects}。注意{cautions}。",
    "{name}是{drug_class}，可用于{indications:2}；常见不良反应为{side_effects:2}；{note}。",
    "患者：医生给我开了{name}，它是治什么的？\n医生：它属于{drug_class}，用于{indications:2}。\n患者：有副作用吗？\n医生：可能有{side_effects:2}，要注意{cautions:2}。",
    "患者：我在用{name}，要注意什么？\n药师：{cautions:2}。另外，{note}。",
    "家属：用了{name}以后出现{side_effects:1}，怎么办？\n药师：这是可能的不良反应之一，请尽快联系医生，由医生判断是否需要调整。",
    "药学课堂：{name}。第一，它是{drug_class}；第二，它用于{indications:2}；第三，要防范{side_effects:2}。",
    "用药指导单：您使用的药物是{name}，用途为{indications:2}，请做到{cautions:2}，如有{side_effects:2}请告知医生。",
    "判断题：{name}属于{drug_class}。答案：对。它可用于{indications:2}。",
    "填空：{name}的类别是（{drug_class}），常见不良反应有（{side_effects:2}）。",
    "学生：{name}的要点是什么？\n老师：类别是{drug_class}，用途是{indications:2}，注意{cautions:2}。",
    "要点回顾：{name}——类别（{drug_class}）；用途（{indications}）；不良反应（{side_effects}）；提示（{note}）。",
)

PAIRS: tuple[str, ...] = (
    "{a_name}和{b_name}都是{a_drug_class}。前者可能引起{a_side_effects:2}，后者可能引起{b_side_effects:2}。",
    "{a_name}用于{a_indications:2}，{b_name}用于{b_indications:2}，两者都要遵医嘱使用。",
    "问：{a_name}和{b_name}是同一类药吗？\n答：是的，都属于{a_drug_class}，但不能自行互换。",
    "使用{a_name}要注意{a_cautions:2}；使用{b_name}要注意{b_cautions:2}。",
)

GROUPS: dict[str, tuple[str, ...]] = {
    "drug_class": (
        "属于{value}的药物有{names}。",
        "{names}都是{value}。",
        "问：{value}有哪些？\n答：例如{names}。",
    ),
    "indications": (
        "涉及{value}的常用药物有{names}等，具体用药由医生决定。",
        "{names}都可能用于{value}。",
        "问：{value}可能用到什么药？\n答：如{names}，需遵医嘱选择。",
    ),
    "side_effects": ("可能引起{value}的药物有{names}等。", "{names}使用后都可能出现{value}。"),
}

FORMS = Forms(STATEMENTS, QUESTIONS, TEXTS, PAIRS, GROUPS)
