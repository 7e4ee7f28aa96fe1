"""Chinese sentence forms for the table of diseases.

In statements `{name}` may also be filled with 该病, so nothing may be built on it that a pronoun cannot carry.
"""

from __future__ import annotations

from ms_medqa.data.corpus.phrases import Forms

STATEMENTS: dict[str, tuple[str, ...]] = {
    "definition": (
        "{name}是{definition}。",
        "{name}指的是{definition}。",
        "从医学上说，{name}是{definition}。",
        "简单地说，{name}就是{definition}。",
        "通常认为，{name}是{definition}。",
        "{name}可以理解为{definition}。",
    ),
    "category": (
        "{name}属于{category}。",
        "在分类上，{name}归入{category}。",
        "{name}是{category}中的一种。",
        "按照系统划分，{name}属于{category}的范围。",
    ),
    "aka": (
        "{name}又称{aka:1}。",
        "{name}也叫{aka:1}，两者说的是同一件事。",
        "人们常说的{aka:1}，就是指{name}。",
        "{aka:1}是{name}的另一种叫法。",
    ),
    "causes": (
        "{name}的发生与{causes}有关。",
        "引起{name}的常见原因有{causes}。",
        "{name}的病因包括{causes}等。",
        "{causes:3}都可能与{name}的发生有关。",
        "目前认为，{causes}是{name}的重要相关因素。",
        "了解{name}的原因有助于防范，常见的有{causes}。",
        "存在{causes:2}等情况的人，更要留意{name}。",
        "{causes:1}是{name}的相关因素之一，此外还可见于{causes:2}。",
        "说到{name}的原因，常被提到的是{causes}。",
    ),
    "symptoms": (
        "{name}的主要症状有{symptoms}。",
        "{name}常表现为{symptoms}。",
        "{name}患者可能出现{symptoms}等表现。",
        "{symptoms}是{name}比较常见的表现。",
        "{name}的典型表现包括{symptoms}，但轻重因人而异。",
        "得了{name}，身体可能会出现{symptoms}。",
        "如果出现{symptoms:2}，应当想到{name}的可能。",
        "{name}的表现因人而异，可以有{symptoms}。",
        "临床上，{name}多见{symptoms}。",
        "{name}患者就诊时常常诉说{symptoms:3}。",
        "{symptoms:2}虽然不是{name}独有的，但出现后应及时就医查明原因。",
    ),
    "exams": (
        "诊断{name}常用的检查有{exams}。",
        "怀疑{name}时，医生可能会安排{exams}。",
        "{name}的检查项目包括{exams}等。",
        "{exams}有助于{name}的诊断。",
        "要明确是不是{name}，一般需要结合症状和{exams:2}的结果判断。",
        "{exams:1}是了解{name}情况的常用方法。",
        "为了确诊{name}，可以根据病情选择{exams}。",
        "{name}患者复查时，可能需要再做{exams:2}。",
    ),
    "treatments": (
        "{name}的治疗方法包括{treatments}。",
        "治疗{name}，常用的措施有{treatments}。",
        "{name}的处理原则是{treatments}。",
        "对于{name}，医生会根据病情考虑{treatments}。",
        "{name}需要综合治疗，例如{treatments}。",
        "目前{name}的主要治疗手段有{treatments}等。",
        "{name}确诊以后，应在医生指导下进行治疗，包括{treatments}。",
        "{treatments:1}是{name}治疗中的重要一环。",
        "{name}的治疗方案因人而异，常见的有{treatments}。",
    ),
    "prevention": (
        "预防{name}，平时要做到{prevention}。",
        "{name}的预防措施包括{prevention}。",
        "想要远离{name}，应注意{prevention}。",
        "{prevention}，对{name}的防治有帮助。",
        "日常生活中，{name}的预防重点是{prevention}。",
        "{name}重在预防，建议{prevention:2}。",
        "为了降低发生{name}的风险，可以从{prevention:2}做起。",
        "防治{name}，可以记住这几点：{prevention}。",
    ),
    "diet": (
        "{name}患者的饮食要点是{diet}。",
        "在饮食方面，{name}患者应注意{diet}。",
        "{name}的饮食建议：{diet}。",
        "合理饮食对{name}患者有帮助，可参考的原则有{diet}。",
        "{name}患者吃饭要有讲究：{diet}。",
        "饮食调理是{name}日常管理的一部分，具体为{diet}。",
        "{name}患者在饮食上可以这样安排：{diet}。",
    ),
    "department": (
        "{name}患者应到{department}就诊。",
        "怀疑得了{name}，可以挂{department}的号。",
        "{name}一般由{department}诊治。",
        "看{name}，首选的科室是{department}。",
        "出现{name}的表现时，建议到医院{department}检查。",
        "在医院里，{department}负责{name}的诊断和治疗。",
    ),
    "complications": (
        "{name}如果不及时治疗，可能引起{complications}。",
        "{name}的并发症有{complications}。",
        "{name}可能并发{complications}，需要警惕。",
        "{name}控制不好时，可出现{complications}等问题。",
        "忽视{name}，有发生{complications}的风险。",
        "{complications}是{name}需要防范的并发症。",
        "积极治疗{name}，也是为了避免{complications:2}。",
    ),
    "infectious": (
        "{name}具有传染性，应注意防护，避免传给他人。",
        "{name}会传染，患者和家人都要做好防护。",
        "{name}是一种可以传播的疾病，要按要求做好隔离或防护。",
        "与{name}患者接触时，应按医生的要求做好防护。",
    ),
    "harmless_to_others": (
        "{name}不会传染给他人。",
        "{name}不是传染病，与患者正常接触不会被传染。",
        "{name}没有传染性，家人不必担心被传染。",
        "日常接触不会传播{name}。",
    ),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    "definition": (
        "什么是{name}？",
        "{name}是什么病？",
        "{name}是怎么回事？",
        "能解释一下{name}吗？",
        "{name}指的是什么？",
    ),
    "category": ("{name}属于哪一类疾病？", "{name}算哪类病？", "{name}归在什么疾病里？"),
    "aka": ("{name}还有别的名字吗？", "{name}又叫什么？", "{aka:1}和{name}是一回事吗？"),
    "causes": (
        "{name}是什么原因引起的？",
        "为什么会得{name}？",
        "{name}的病因有哪些？",
        "哪些因素容易引起{name}？",
        "{name}与什么有关？",
        "怎么会得上{name}的？",
    ),
    "symptoms": (
        "{name}有哪些症状？",
        "{name}有什么表现？",
        "得了{name}会有什么感觉？",
        "{name}的典型症状是什么？",
        "怎样从症状上发现{name}？",
        "{name}患者身体会有哪些不舒服？",
    ),
    "exams": (
        "{name}需要做哪些检查？",
        "怎么确诊{name}？",
        "怀疑{name}应该查什么？",
        "诊断{name}要做什么检查？",
        "{name}靠什么检查发现？",
    ),
    "treatments": (
        "{name}怎么治疗？",
        "{name}有哪些治疗方法？",
        "得了{name}应该怎么办？",
        "{name}如何处理比较好？",
        "确诊{name}后该怎么治？",
        "{name}的治疗原则是什么？",
    ),
    "prevention": (
        "怎样预防{name}？",
        "{name}如何预防？",
        "平时怎么做可以避免{name}？",
        "怎么减少得{name}的机会？",
        "{name}能预防吗？",
    ),
    "diet": (
        "{name}患者饮食要注意什么？",
        "{name}吃什么好？",
        "得了{name}在吃的方面有什么讲究？",
        "{name}患者怎么吃比较好？",
    ),
    "department": (
        "{name}应该看什么科？",
        "{name}挂哪个科的号？",
        "得了{name}去哪个科室？",
        "看{name}找哪个科的医生？",
    ),
    "complications": (
        "{name}有什么并发症？",
        "{name}不治疗会怎样？",
        "{name}严重时会引起什么问题？",
        "{name}会带来哪些危害？",
    ),
    "infectious": ("{name}会传染吗？", "{name}有传染性吗？", "和{name}患者接触要紧吗？"),
    "harmless_to_others": ("{name}会传染吗？", "{name}是不是传染病？", "家人会不会被传染上{name}？"),
}

# Whole texts that combine several fields.
TEXTS: tuple[str, ...] = (
    "{name}\n类别：{category}\n表现：{symptoms}\n检查：{exams}\n治疗：{treatments}\n科室：{department}",
    "【{name}】{definition}。病因：{causes}。症状：{symptoms}。就诊科室：{department}。",
    "{name}小知识：一、{name}是{definition}；二、常见表现是{symptoms}；三、预防要点是{prevention}。",
    "病名：{name}。常见症状：{symptoms}。常用检查：{exams}。处理：{treatments}。可能的并发症：{complications}。",
    "名词解释：{name}，{definition}，属于{category}，由{department}诊治。",
    "健康宣教（{name}）：{definition}。平时应注意{prevention}；饮食上{diet}；如出现{symptoms:2}，请到{department}就诊。",
    "一位{name}患者来到{department}，诉说{symptoms:2}。医生安排了{exams:2}，并交代治疗包括{treatments:2}。",
    "患者因{symptoms:2}就诊于{department}，完善{exams:2}后考虑{name}，给予的建议是{treatments:2}。",
    "患者：医生，我最近出现{symptoms:2}，会是什么问题？\n医生：这些表现可见于{name}，也可见于别的病，建议先做{exams:2}。\n患者：应该看哪个科？\n医生：看{department}。",
    "患者：我被诊断为{name}，平时要注意什么？\n医生：饮食上{diet:2}，生活中{prevention:2}。\n患者：要怎么治疗？\n医生：主要是{treatments:2}。",
    "家属：得了{name}严重吗？\n医生：要看具体情况。如果不重视，可能出现{complications:2}。\n家属：那该怎么办？\n医生：按要求{treatments:2}，并定期复诊。",
    "学生：老师，{name}的要点有哪些？\n老师：记住三点。病因多为{causes:2}，表现为{symptoms:2}，检查常用{exams:2}。",
    "关于{name}，需要知道的是：它是{definition}，与{causes:2}有关，表现为{symptoms:3}，治疗上可选择{treatments:2}。",
    "判断题：{name}属于{category}。答案：对。{name}是{definition}。",
    "填空：{name}应到（{department}）就诊，常用检查有（{exams:2}）。",
    "门诊小结：主诉{symptoms:2}；考虑{name}；建议{treatments:2}；饮食{diet:2}；随访科室为{department}。",
    "健康讲座的主题是{name}。讲者先介绍病因，如{causes:2}；再介绍表现，如{symptoms:2}；最后强调{prevention:2}。",
    "问诊时，医生会询问有没有{symptoms:3}，了解是否存在{causes:2}，据此考虑{name}的可能，再用{exams:2}来明确。",
    "有人以为{name}是小问题，其实它可能引起{complications:2}。正确的做法是到{department}就诊，并做到{treatments:2}。",
    "要点回顾：{name}——病因（{causes:2}）；表现（{symptoms:2}）；检查（{exams:2}）；治疗（{treatments:2}）；预防（{prevention:2}）。",
)

# Two diseases of one category (a_, b_).
PAIRS: tuple[str, ...] = (
    "{a_name}和{b_name}都属于{a_category}。前者常见{a_symptoms:2}，后者常见{b_symptoms:2}。",
    "{a_name}与{b_name}有什么不同？{a_name}是{a_definition}，而{b_name}是{b_definition}。",
    "比较两种疾病：{a_name}多与{a_causes:2}有关，{b_name}多与{b_causes:2}有关。",
    "问：{a_name}和{b_name}的表现一样吗？\n答：不完全一样。{a_name}可出现{a_symptoms:2}，{b_name}可出现{b_symptoms:2}。",
    "{a_name}常用的检查是{a_exams:2}，{b_name}常用的检查则是{b_exams:2}。",
    "治疗上，{a_name}可选择{a_treatments:2}，{b_name}可选择{b_treatments:2}，不能混为一谈。",
    "患者：我分不清{a_name}和{b_name}。\n医生：{a_name}是{a_definition}；{b_name}是{b_definition}。",
    "同属{a_category}，{a_name}可能引起{a_complications:2}，{b_name}可能引起{b_complications:2}。",
    "鉴别{a_name}与{b_name}时，可以比较症状：前者为{a_symptoms:3}；后者为{b_symptoms:3}。",
)

# From a value back to the diseases that share it; `{names}` holds two or more.
GROUPS: dict[str, tuple[str, ...]] = {
    "category": (
        "常见的{value}有{names}。",
        "{names}都属于{value}。",
        "问：{value}包括哪些？\n答：例如{names}。",
        "{value}种类较多，比如{names}等。",
    ),
    "department": (
        "{names}患者一般到{value}就诊。",
        "{value}诊治的疾病有{names}等。",
        "问：{value}看哪些病？\n答：如{names}。",
    ),
    "symptoms": (
        "可以出现{value}的疾病有{names}等。",
        "{value}可见于{names}，需要结合检查来鉴别。",
        "问：出现{value}可能是什么病？\n答：{names}都有可能，应就医查明原因。",
        "{names}都可能有{value}的表现。",
    ),
    "exams": (
        "{value}可用于{names}等疾病的检查。",
        "{names}的诊断都可能用到{value}。",
        "问：哪些病可能要做{value}？\n答：例如{names}。",
    ),
    "causes": ("与{value}有关的疾病有{names}。", "{value}可能是{names}的共同原因之一。"),
    "complications": ("{names}都可能引起{value}。", "问：哪些病会并发{value}？\n答：如{names}。"),
}

FORMS = Forms(STATEMENTS, QUESTIONS, TEXTS, PAIRS, GROUPS)
