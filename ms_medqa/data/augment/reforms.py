"""Other forms of the same question, by patterns that know the whole question.

A pattern fires only where it covers the question from end to end and every part of it is of a known kind; what is not
understood stays as it is. Where words move (X怎么治疗 → 如何治疗X), X must be the plain name of a disease; where they
only change in their place (怎么 → 如何) the rest may be anything.
"""

from __future__ import annotations

import re

from ms_medqa.data.augment.boundary import HAN

_ADVERBS = ("如何", "怎么", "怎样")
_END = "？?。. \t\n"

# A noun phrase: no clause, no comparison, no negation, no question of its own. 性功能, 妄想 and their like are names.
_CLAUSE = re.compile(
    r"不|没|别(?!嘌)|勿|出现|患有|患了|得了|如果|应该|应当|需|被(?!动|膜)|发现|确诊|可能|可以|会(?!阴|厌)|(?<![功机性智])能|"
    r"(?<![主需])要|吗|呢|了|什么|怎|如何|哪|多少|几|谁|是|请|我|你|他|她|这|那|该|最|比较|更|为|让|使|把|和|与|及|或|跟"
)
_NAME = re.compile(r"[\u4e00-\u9fffA-Za-z0-9α-ωⅠ-Ⅻ\-]{2,20}")
_DISEASE = re.compile(
    r".*(?:病|症|炎|癌|瘤|综合征|感染|高血压|低血压|高血脂|梗死|梗塞|心梗|脑梗|中风|卒中|衰竭|心衰|溃疡|硬化|结石|骨折|脱位|贫血|"
    r"过敏|损伤|障碍|疹|疮|癣|疣|疱疹|痛|发热|发烧|腹泻|失眠|便秘|感冒|流感|哮喘|癫痫|痛风|痔疮|疟疾|肺结核|霍乱|伤寒|近视|甲亢|甲减|"
    r"房颤|早搏|乙肝|丙肝|甲肝|白内障|青光眼|肝硬化|增生|囊肿|息肉|肌瘤|中毒|水肿|出血|妊娠|麻痹)"
)
_DOING = re.compile(r"治|预防|护理|检查|诊断|避免|缓解|处理|手术|吃|用|服|做|打")
# What stands before 有 or 怎么 and is no part of the name.
_ADVERBIAL = re.compile(
    r".*(?:的|后|时|中|还|都|常|也|就|又|只|各|均|多|一般|主要|具体|到底|究竟|分别|同时|往往|平时|如今|现在|目前|早期|晚期|常见|典型|临床)"
)
_NO_DISEASE = re.compile(r".*(?:疾病|中医|西医|医生|大夫|医院|专家|患者|病人|孩子|宝宝|儿童|老人|孕妇)")

_KINDS = r"(?:早期|晚期|主要|常见|典型|临床)?(?:症状|表现)|并发症|后遗症|副作用|不良反应|危害|类型|病因|禁忌症"
# Of these one may say that somebody or something will have them.
_COMING = re.compile(r".*(?:症状|表现|并发症|后遗症|副作用|不良反应|危害)")

_DEFINITION = (re.compile(r"(?:请问)?(?:什么是|何谓)(?P<x>.+)"), re.compile(r"(?:请问)?(?P<x>.+?)是什么"))
_KIND = (
    re.compile(rf"(?:请问)?(?P<x>.+?)(?:会)?有(?:哪些|什么)(?P<kind>{_KINDS})"),
    re.compile(rf"(?:请问)?(?P<x>.+)的(?P<kind>{_KINDS})有(?:哪些|什么)"),
)
_TREATMENT = (
    re.compile(r"(?:请问)?(?P<x>.+?)(?:应该|应当|应|该)?(?:如何|怎么|怎样)治疗?"),
    re.compile(r"(?:请问)?(?:应该|应当|应|该)?(?:如何|怎么|怎样)治疗(?P<x>.+)"),
    re.compile(r"(?:请问)?(?P<x>.+)的治疗方法有哪些"),
    re.compile(r"(?:请问)?(?P<x>.+)有哪些治疗方法"),
)
_PREVENTION = (
    re.compile(r"(?:请问)?(?P<x>.+?)(?:应该|应当|应|该)?(?:如何|怎么|怎样)预防"),
    re.compile(r"(?:请问)?(?:应该|应当|应|该)?(?:如何|怎么|怎样)预防(?P<x>.+)"),
)
# No name of 20 characters is as long with what the patterns above have around it.
_TOO_LONG = 40
# The end of any text: only the adverb changes, and 请问 comes behind its last comma.
_ADVERB = re.compile(
    r"(?P<before>.*?)(?P<ask>(?:请问)?(?:应该|应当|应|该)?)(?P<adverb>如何|怎么|怎样)"
    r"(?P<verb>(?:治疗|处理|预防|诊断|护理|进行治疗|进行诊断|进行护理|确诊)(?:和(?:治疗|预防|护理))?)",
    re.DOTALL,
)
# What it ends with; looked at first, as the search for the adverb goes through the whole text.
_VERB_ENDS = ("治疗", "处理", "预防", "诊断", "护理", "确诊")
_ONE_SENTENCE = re.compile(r"[^，。；！？：,;!?:\n“”\"()（）]{4,40}")
_ASKS = re.compile(r"什么|怎么|怎样|如何|哪些|哪个|哪种|为何|多少|是否|吗$|能否|可否")
_NOT_ASKED = re.compile(
    r"^(?:请|想|我|你|您|求|帮|谁|医生|大夫|老师|好)|没什么|没有什么|什么的|无论|不管|不论|知道|请问"
)

# English names: one to four words behind an optional article, none of which can be more than a part of a name.
_ENGLISH_X = r"(?P<x>(?:(?:the|a|an)\s+)?[A-Za-z][A-Za-z0-9'-]*(?:\s+[A-Za-z0-9][A-Za-z0-9'-]*){0,3})"
_NO_NAME_WORDS = (
    "it this that these those there he she they you i we my your his her their our me him them better best worse worst "
    "wrong new good bad more most less least not no never only always up down so like next other different normal true "
    "false meant known called used done is are was were be been am do does did can could will would should may might "
    "must has have had if when while because than or and but vs versus for of in on at to from with by about after "
    "before during without between against into over under which who what why how where whose"
)
_NO_NAME = frozenset(_NO_NAME_WORDS.split())
_NO_NOUN = ("ing", "ed", "ly", "ous", "able", "ible")
_ENGLISH: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern.replace("X", _ENGLISH_X), re.IGNORECASE), forms)
    for pattern, forms in (
        (r"what(?:\s+is|['’]s)\s+X", ("Could you tell me what {x} is", "Can you explain what {x} is")),
        (r"(?:could|can)\s+you\s+(?:please\s+)?tell\s+me\s+what\s+X\s+is", ("What is {x}",)),
        (
            r"what\s+are\s+the\s+(?P<kind>(?:early\s+)?symptoms|causes|complications|side\s+effects)\s+of\s+X",
            ("Could you tell me what the {kind} of {x} are", "Can you tell me what the {kind} of {x} are"),
        ),
        (
            r"what\s+are\s+the\s+treatments\s+(?:for|of)\s+X",
            ("How can {x} be treated", "Which treatments are there for {x}"),
        ),
        (r"how\s+(?:is|are)\s+X\s+treated", ("How can {x} be treated", "What are the treatments for {x}")),
        (r"how\s+to\s+treat\s+X", ("How can {x} be treated", "What are the treatments for {x}")),
        (r"how\s+can\s+X\s+be\s+treated", ("What are the treatments for {x}",)),
        (r"how\s+(?:to|can\s+(?:i|we|you|one))\s+prevent\s+X", ("How can {x} be prevented",)),
        (r"what\s+causes\s+X", ("What are the causes of {x}",)),
    )
)


def reforms(question: str) -> list[str]:
    """The same question in other words, in a fixed order; empty where no pattern covers it.

    The question mark, or its absence, stays as it is.
    """
    # Not a pattern: on a long run of spaces before other text it takes quadratic time.
    body = question.rstrip(_END)
    end = question[len(body) :]
    body = body.strip()
    # A full stop makes a statement, of which no pattern is sure.
    if not body or "\n" in body or any(c in end for c in "。."):
        return []
    forms = _chinese(body, "?" in end or "？" in end) if HAN.search(body) else _english(body)
    return [form + end.strip() for form in dict.fromkeys(forms) if form != body]


def _chinese(body: str, is_marked: bool) -> list[str]:
    forms = []
    if len(body) < _TOO_LONG:
        forms = _definition(body) or _kind(body) or _treatment(body) or _prevention(body)
    if body.endswith(_VERB_ENDS) and (found := _ADVERB.fullmatch(body)):
        before, ask = found["before"], found["ask"]
        forms += [f"{before}{ask}{adverb}{found['verb']}" for adverb in _ADVERBS]
        if before.rstrip().endswith(("，", "。", "；", ",")) and "请问" not in body:
            forms.append(f"{before}请问{ask}{found['adverb']}{found['verb']}")
    if is_marked and _ONE_SENTENCE.fullmatch(body) and _ASKS.search(body) and not _NOT_ASKED.search(body):
        forms.append("请问" + body)
    return forms


def _definition(body: str) -> list[str]:
    for pattern in _DEFINITION:
        found = pattern.fullmatch(body)
        # Diseases only: 诊断是什么 asks for a diagnosis, 什么是诊断 for the meaning of a word.
        if found and _is_disease(found["x"]) and "的" not in found["x"]:
            x = found["x"]
            return [f"什么是{x}", f"请问什么是{x}", f"{x}是什么", f"请问{x}是什么"]
    return []


def _kind(body: str) -> list[str]:
    for pattern in _KIND:
        found = pattern.fullmatch(body)
        if found and _is_name(found["x"]):
            x, kind = found["x"], found["kind"]
            forms = [f"{x}有哪些{kind}", f"{x}有什么{kind}", f"请问{x}有哪些{kind}"]
            if _COMING.fullmatch(kind) and not kind.startswith(("早期", "晚期")):
                forms.append(f"{x}会有哪些{kind}")
            # Two 的 in a row read badly.
            return forms if "的" in x else [*forms, f"{x}的{kind}有哪些"]
    return []


def _treatment(body: str) -> list[str]:
    for pattern in _TREATMENT:
        found = pattern.fullmatch(body)
        if found and _is_disease(found["x"]):
            x = found["x"]
            forms = [f"{x}怎么治疗", f"{x}如何治疗", f"如何治疗{x}", f"怎样治疗{x}", f"请问{x}怎么治疗"]
            return forms if "的" in x else [*forms, f"{x}的治疗方法有哪些", f"{x}有哪些治疗方法"]
    return []


def _prevention(body: str) -> list[str]:
    for pattern in _PREVENTION:
        found = pattern.fullmatch(body)
        if found and _is_disease(found["x"]):
            x = found["x"]
            return [f"{x}怎么预防", f"{x}如何预防", f"如何预防{x}", f"怎样预防{x}", f"请问如何预防{x}"]
    return []


def _is_name(x: str) -> bool:
    return bool(_NAME.fullmatch(x)) and not _CLAUSE.search(x) and not _ADVERBIAL.fullmatch(x)


def _is_disease(x: str) -> bool:
    return _is_name(x) and bool(_DISEASE.fullmatch(x)) and not _DOING.search(x) and not _NO_DISEASE.fullmatch(x)


def _english(body: str) -> list[str]:
    for pattern, forms in _ENGLISH:
        found = pattern.fullmatch(body)
        if found and _is_english_name(found["x"]):
            return [form.format_map(found.groupdict()) for form in forms]
    return []


def _is_english_name(x: str) -> bool:
    words = x.lower().split()
    words = words[1:] if words[0] in ("the", "a", "an") else words
    # Participles and adjectives: what is causing …, what is recommended, what is contagious.
    return bool(words) and not any(w in _NO_NAME or w.endswith(_NO_NOUN) for w in words)
