"""Chinese sentence forms for the table of examinations; in statements `{name}` may also be filled with 该检查."""

from __future__ import annotations

from ms_medqa.data.corpus.phrases import Forms

STATEMENTS: dict[str, tuple[str, ...]] = {
    "purpose": (
        "{name}的目的是{purpose}。",
        "做{name}是为了{purpose}。",
        "{name}主要用来{purpose}。",
        "{name}的作用在于{purpose}。",
        "医生安排{name}，是想{purpose}。",
        "通过{name}，可以{purpose}。",
    ),
    "shows": (
        "{name}可以提供{shows}等信息。",
        "从{name}的结果中可以看到{shows}。",
        "{name}可能提示{shows}。",
        "{shows}可以在{name}中得到反映。",
        "看{name}的报告，要关注{shows}。",
        "{name}能帮助了解{shows}，但结果要由医生结合病情解释。",
    ),
    "preparation": (
        "做{name}之前要准备：{preparation}。",
        "{name}的准备事项有{preparation}。",
        "为了让{name}的结果可靠，应做到{preparation}。",
        "{name}前后请注意：{preparation}。",
        "预约了{name}的人，请留意{preparation}。",
        "护士会提醒做{name}的患者：{preparation}。",
    ),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    "purpose": ("{name}是查什么的？", "为什么要做{name}？", "{name}有什么用？", "{name}的目的是什么？"),
    "shows": ("{name}能发现什么？", "{name}可以看出哪些问题？", "{name}的结果说明什么？", "{name}的报告要看什么？"),
    "preparation": (
        "做{name}前要注意什么？",
        "{name}需要怎么准备？",
        "做{name}之前有什么要求？",
        "明天要做{name}，应该准备什么？",
    ),
}

TEXTS: tuple[str, ...] = (
    "检查：{name}\n目的：{purpose}\n可了解：{shows}\n准备：{preparation}",
    "【{name}】用于{purpose}，可了解{shows}。检查前{preparation}。",
    "{name}用来{purpose}，结果可反映{shows:2}，检查前应{preparation:2}。",
    "患者：医生，为什么要我做{name}？\n医生：是为了{purpose}。\n患者：要准备什么？\n医生：{preparation:2}。",
    "患者：{name}能查出什么？\n医生：可以了解{shows:2}，最后要结合症状判断。",
    "检查须知：您预约的项目是{name}，目的是{purpose}，请做到{preparation}。",
    "学生：{name}有什么意义？\n老师：它可以{purpose}，帮助了解{shows:2}。",
    "判断题：{name}可以{purpose}。答案：对。",
    "要点回顾：{name}——目的（{purpose}）；内容（{shows}）；准备（{preparation}）。",
)

PAIRS: tuple[str, ...] = (
    "{a_name}用来{a_purpose}，{b_name}用来{b_purpose}，两者不能互相代替。",
    "{a_name}与{b_name}有什么区别？前者可了解{a_shows:2}，后者可了解{b_shows:2}。",
    "做{a_name}前要{a_preparation:1}，做{b_name}前要{b_preparation:1}。",
)

GROUPS: dict[str, tuple[str, ...]] = {
    "shows": ("想了解{value}，可以做{names}。", "{names}都能反映{value}。"),
    "preparation": ("{names}都要求{value}。", "问：哪些检查要{value}？\n答：例如{names}。"),
}

FORMS = Forms(STATEMENTS, QUESTIONS, TEXTS, PAIRS, GROUPS)
