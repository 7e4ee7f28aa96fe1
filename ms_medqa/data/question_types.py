"""What a medical question asks for, told by its words: the strata of the split and a figure of the report."""

from __future__ import annotations

import re
from typing import Literal, cast, get_args

from ms_medqa.data.text import to_nfkc

QuestionType = Literal["definition", "symptom", "treatment", "drug", "examination", "prevention", "other"]
TYPES: tuple[QuestionType, ...] = get_args(QuestionType)

# Regular expressions over the normalised, lower-case text. `other` has words too, so that 该去哪个科室 does not count
# as the symptom named before it. At one place the type named first counts.
_CHINESE: dict[QuestionType, str] = {
    "prevention": "预防 防止 避免 疫苗 接种 防护",
    "drug": "药(?!物治疗|物流产|物性) 剂量 用量 副作用 不良反应 禁忌 服用 口服 片剂 针剂 胶囊 颗粒剂 注射液 抗生素"
    " 激素 头孢 霉素 青霉素 西林 沙星 洛芬 匹林 沙坦 他汀 地平 洛尔 普利 拉唑 双胍 列汀 列净 胰岛素(?!瘤|抵抗)"
    " 对乙酰氨基酚",
    "examination": "检查 化验 检测 检验 筛查 诊断 确诊 鉴别 指标 正常值 参考值 血常规 尿常规 胃镜 肠镜 彩超 b超"
    " 心电图 核磁 ct(?![a-z]) mri(?![a-z]) 活检 造影 x线 什么疾病 哪种疾病 何种疾病 哪种病 何种病"
    " 什么病(?<!是什么病) 可能是什么病",
    "treatment": "治疗 怎么治 如何治 怎样治 能治 可治 治愈 根治 治好 疗法 疗程 化疗 放疗 手术 怎么办 咋办 处理"
    " 急救 康复 护理 缓解 调理",
    "symptom": "症状 表现 体征 征兆 前兆 先兆 征象 感觉 不舒服",
    "other": "病因 原因 为什么 为何 发病机制 机理 科室 哪个科 哪科 并发症 后遗症 传染 遗传 发病率 发病部位 人群"
    " 群体 预后 活多久 饮食 食物 吃什么(?!药) 能吃 可以吃 忌口",
}
_ENGLISH: dict[QuestionType, str] = {
    "prevention": r"prevent\w*|avoid\w*|prophyla\w+|vaccin\w+|immuni[sz]\w+"
    r"|(?:lower|reduce|decrease)\w* (?:\w+ )?risk",
    "drug": r"drugs?|doses?|dosages?|medications?|medicines?|pharmaco\w+|side effects?|adverse effects?"
    r"|contraindicat\w+|antibiotics?|tablets?|pills?|antidotes?|insulin|aspirin|ibuprofen|acetaminophen|paracetamol"
    r"|metformin|warfarin|\w+(?:cillin|statin|pril|sartan|olol|mycin|floxacin|azole|dipine)",
    "examination": r"diagnos\w+|tests?|testing|exam(?:s|ination\w*)?|screen\w*|biops\w+|imaging|scans?|x-?rays?"
    r"|ultrasound|ct|mri|ecg|ekg|\w+scopy|\w+gram|laborator\w+|normal (?:range|value|level)\w*|findings?",
    "treatment": r"treat\w*|therap\w+|surg\w+|manag\w+|cure[sd]?|heal(?:ed|ing)?|reliev\w+|(?:best|next) step"
    r"|interventions?|rehab\w*|first aid|operat(?:ion|ions|ed)|transplant\w*|what should i do",
    "symptom": r"symptoms?|signs?|manifest\w*|presentations?|present|feels? like|complaints?",
    "other": r"causes?|etiolog\w+|why|mechanisms?|risk factors?|complications?|contagious|prognosis|diet|eat",
}
# Tried where a sentence has no other type's word: 糖尿病的症状是什么 asks for no definition.
_DEFINITION = re.compile(
    r"定义|含义|概念|何谓|什么意思|什么叫|什么是|^[^的]{1,20}是(?:一种)?什么病?$"
    r"|\b(?:define[sd]?|definition|meaning|means?|stands? for)\b"
    r"|^what(?: is|'s| are) (?:(?! of | for | in )[\w' -]){1,40}$"
)
_SENTENCE_END = re.compile(r"[。!?;\n]|\.(?=\s|$)")
_HAN = re.compile(r"[\u3400-\u9fff]")


def _chinese() -> re.Pattern[str]:
    words = {kind: text.split() for kind, text in _CHINESE.items()}
    # Each word begins with a plain character. To look for those first makes the search several times as fast.
    initials = "".join(sorted({word[0] for group in words.values() for word in group}))
    return re.compile(
        f"(?=[{initials}])(?:" + "|".join(f"(?P<{k}>{'|'.join(group)})" for k, group in words.items()) + ")"
    )


_CHINESE_PATTERN = _chinese()
_ENGLISH_PATTERN = re.compile(r"\b(?:" + "|".join(f"(?P<{kind}>{words})" for kind, words in _ENGLISH.items()) + r")\b")


def question_type(text: str) -> QuestionType:
    """The type of a question in Chinese or English.

    The last sentence in which a type's word stands decides, for what goes before it is the patient's history. In a
    Chinese sentence the last such word counts (高血压的治疗药物有哪些: drug), in an English one the first (which drug
    treats malaria: drug): that is where the two languages put what is asked for. Causes, diet, prognosis, departments
    and whatever has no word of a type are `other`.

    Accuracy: all of the 66 questions in tests/data/test_question_types.py, which the words were tuned on; read by eye,
    about nine in ten of 50 questions drawn from a public set of Chinese patient questions. Enough for even strata and
    for a figure in a report, not for anything that concerns a single question.
    """
    normal = to_nfkc(text).lower()
    for sentence in reversed(_SENTENCE_END.split(normal)):
        sentence = sentence.strip()
        if not sentence:
            continue
        kind: str | None = None
        if _HAN.search(sentence):
            for match in _CHINESE_PATTERN.finditer(sentence):
                kind = match.lastgroup
        elif match := _ENGLISH_PATTERN.search(sentence):
            kind = match.lastgroup
        if kind is None and _DEFINITION.search(sentence):
            kind = "definition"
        if kind is not None:
            return cast(QuestionType, kind)
    return "other"
