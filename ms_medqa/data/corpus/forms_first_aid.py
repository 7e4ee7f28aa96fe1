"""Chinese sentence forms for the table of first aid; its advice keeps the table's order where the order matters."""

from __future__ import annotations

from ms_medqa.data.corpus.phrases import Forms

STATEMENTS: dict[str, tuple[str, ...]] = {
    "do": (
        "遇到{situation}，应该{do:all}。",
        "{situation}的急救要点是{do:all}。",
        "发生{situation}时，现场可以这样做：{do:all}。",
        "{situation}的正确处理：{do:all}。",
        "对于{situation}，首先要保持冷静，然后{do:all}。",
        "处理{situation}，需要做到{do}。",
        "面对{situation}，身边的人可以{do:2}。",
        "{do:1}是{situation}急救中的一步。",
    ),
    "dont": (
        "遇到{situation}，{dont}。",
        "{situation}的处理有禁忌：{dont:all}。",
        "发生{situation}时要记住，{dont}。",
        "{situation}时常见的错误做法要避免，也就是{dont}。",
        "处理{situation}，千万{dont:1}。",
    ),
    "call_help": (
        "遇到{situation}，{call_help}。",
        "{situation}的求助原则：{call_help}。",
        "发生{situation}后什么时候求助？{call_help}。",
        "{situation}不能大意，{call_help}。",
    ),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    "do": (
        "遇到{situation}怎么办？",
        "{situation}如何急救？",
        "发生{situation}应该怎么处理？",
        "{situation}的急救方法是什么？",
        "身边有人发生{situation}，我能做什么？",
    ),
    "dont": ("{situation}时不能做什么？", "处理{situation}有哪些禁忌？", "{situation}有什么错误做法？"),
    "call_help": ("{situation}什么时候要求助？", "{situation}需要去医院吗？", "发生{situation}要不要打急救电话？"),
}

TEXTS: tuple[str, ...] = (
    "急救：{situation}\n应该：{do:all}\n不要做的：{dont:all}\n求助：{call_help}",
    "【{situation}】先{do:1}，并且{dont:1}；{call_help}。",
    "急救课上，老师讲解了{situation}：正确的做法是{do:all}；同时{dont:all}。",
    "接线员：请说明情况。\n来电者：这里有人发生{situation}。\n接线员：请保持冷静，{do:2}，{dont:1}。",
    "家属：发生{situation}，我该做什么？\n医生：{do:all}。\n家属：有什么不能做？\n医生：{dont}。\n家属：要去医院吗？\n医生：{call_help}。",
    "急救口诀要记牢：{situation}，{do:3}，{dont:1}。",
    "学生：{situation}的处理步骤是什么？\n老师：依次为{do:all}。另外，{call_help}。",
    "社区急救宣传：{situation}并不少见。处理要点为{do}；注意{dont:1}。",
    "判断题：发生{situation}时，{dont:1}。答案：对。",
)

PAIRS: tuple[str, ...] = (
    "{a_situation}和{b_situation}的处理不同：前者要{a_do:2}，后者要{b_do:2}。",
    "发生{a_situation}时，{a_dont:1}；发生{b_situation}时，{b_dont:1}。",
)

GROUPS: dict[str, tuple[str, ...]] = {
    "do": ("{names}发生时，都可以{value}。", "问：哪些意外需要{value}？\n答：如{names}。"),
    "dont": ("{names}发生时，都{value}。",),
}

FORMS = Forms(STATEMENTS, QUESTIONS, TEXTS, PAIRS, GROUPS)
