"""Personal numbers and addresses in texts, replaced by what they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

# Patterns take the digits 0-9 and their full-width forms. Numbers without a label are personal only where no letter (of
# an ICD code), digit or decimal point stands before them, and no such and no unit behind.
_D = "[0-9０-９]"
_BEFORE = r"(?<![0-9０-９A-Za-z.])"
_UNITS = r"/|×|[*]\s?10|[μµ]|mg|ml|mL|kg|g\b|IU|U\b|[Cc]opies|CFU|个|万|元|拷贝|单位|毫|微|国际"
_END = rf"(?![0-9０-９A-Za-z])(?!\.[0-9０-９])(?!\s?(?:{_UNITS}))"
_COLON = r"(?:\s*(?:[:：]|为|是|is|#)\s*|\s*)"

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}[@＠](?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_RECORD = re.compile(
    r"(?P<label>(?:病历|病案|住院|门诊|就诊卡?|就诊|登记|挂号|档案|医保卡|社保卡|床位|检查|检验|标本|样本|影像|病理)(?:号码|编号|卡号|号)"
    rf"(?:\s*[(（][^()（）\n]{{0,12}}[)）])?{_COLON}"
    r"|\b(?:MRN|(?:[Mm]edical|[Pp]atient)\s+(?:[Rr]ecord\s+)?(?:[Nn]umber|[Nn]o\.?|ID))(?:\s*[:#：]\s*|\s+is\s+|\s+))"
    rf"(?P<value>[A-Za-z]{{0,4}}-?{_D}[0-9０-９A-Za-z-]{{2,23}})(?![0-9０-９A-Za-z])"
)
_LABELLED_IDENTITY = re.compile(
    rf"(?P<label>身份证(?:件)?(?:号码|号)?{_COLON})(?P<value>{_D}{{14,17}}[0-9０-９XxＸｘ])(?![0-9０-９A-Za-z])"
)
_IDENTITY = re.compile(rf"{_BEFORE}(?:{_D}{{6}}(?:1[89]|20|１[８９]|２０){_D}{{9}}[0-9０-９XxＸｘ]|{_D}{{15}}){_END}")
_EXTENSION = rf"(?:(?:-|转|\s?ext\.?\s?){_D}{{1,5}})?"
_LABELLED_PHONE = re.compile(
    r"(?P<label>(?:电话|手机|座机|热线|传真|微信|联系方式|[Tt]el(?:ephone)?|[Pp]hone|[Mm]obile|[Ff]ax|[Ww][Xx])"
    rf"(?:号码|号|\s?[Nn]umber)?\.?{_COLON})"
    rf"(?P<value>[+＋]?[(（]?{_D}(?:[-－ ()（）]{{0,2}}{_D}){{6,14}})(?![0-9０-９A-Za-z]){_EXTENSION}"
)
_PHONE = re.compile(
    rf"{_BEFORE}(?:[+＋]?86[- ]?)?[1１][3-9３-９]{_D}(?:[- ]?{_D}{{4}}){{2}}{_END}"
    # 010-12345678, (0571)12345678, with an extension
    rf"|{_BEFORE}(?:[(（][0０]{_D}{{2,3}}[)）]\s?|[0０]{_D}{{2,3}}[-－—]){_D}{{7,8}}{_EXTENSION}{_END}"
    # 400-123-4567, 555-123-4567, (555) 123-4567
    rf"|(?<![0-9０-９A-Za-z.-])(?:\({_D}{{3}}\)\s?|{_D}{{3}}-){_D}{{3,4}}-{_D}{{4}}(?!-){_END}"
    rf"|(?<![0-9０-９A-Za-z.-])[48]00-?{_D}{{7}}{_END}"
)
# No pattern fits without four digits near each other or an @.
_WORTH_A_LOOK = re.compile(rf"[@＠]|{_D}(?:[-－—() （）]?{_D}){{3}}|{_D}[0-9０-９A-Za-z-]{{2}}")

# GB 11643-1999: weights of the first 17 digits; the sum modulo 11 gives the last character. The second list are the
# provinces' codes of GB/T 2260.
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_PROVINCES = frozenset(
    map(str, (*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66)))
) | {"71", "81", "82", "83"}
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

PLACEHOLDERS: Mapping[str, str] = {
    "redacted_email": "[邮箱]",
    "redacted_record": "[病历号]",
    "redacted_identity": "[身份证号]",
    "redacted_phone": "[电话]",
}


def is_identity_number(text: str) -> bool:
    """Whether `text` is a Chinese identity number: 18 characters with the right check digit (GB 11643-1999), or 15.

    Province and date of birth must be possible.
    """
    digits = "".join("X" if c in "XxＸｘ" else str(int(c)) for c in text)
    if len(digits) not in (15, 18) or digits[:2] not in _PROVINCES:
        return False
    # The year has four digits in the long form and two in the short one.
    date = digits[10:14] if len(digits) == 18 else digits[8:12]
    month, day = int(date[:2]), int(date[2:])
    if not (1 <= month <= 12 and 1 <= day <= _MONTH_DAYS[month - 1]):
        return False
    if len(digits) == 15:
        return True
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, digits, strict=False))
    return "10X98765432"[total % 11] == digits[17]


def redact(text: str, counts: Counter[str]) -> str:
    """`text` with placeholders; what was replaced is added to `counts` under the names of `PLACEHOLDERS`."""
    if not _WORTH_A_LOOK.search(text):
        return text

    def put(name: str, is_one: Callable[[str], bool] = lambda _: True) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            groups = match.groupdict()
            if not is_one(groups.get("value", match[0])):
                return match[0]
            counts[name] += 1
            return groups.get("label", "") + PLACEHOLDERS[name]

        return replace

    if "@" in text or "＠" in text:
        text = _EMAIL.sub(put("redacted_email"), text)
    text = _RECORD.sub(put("redacted_record"), text)
    text = _LABELLED_IDENTITY.sub(put("redacted_identity"), text)
    text = _IDENTITY.sub(put("redacted_identity", is_identity_number), text)
    text = _LABELLED_PHONE.sub(put("redacted_phone"), text)
    return _PHONE.sub(put("redacted_phone"), text)


def redact_value(value: Any) -> Any:
    """A raw record with every text in it redacted: what `rejected.jsonl` may hold under `data.redact`."""
    if isinstance(value, str):
        return redact(value, Counter())
    if isinstance(value, list):
        return [redact_value(item) for item in value]
    if isinstance(value, Mapping):
        return {key: redact_value(item) for key, item in value.items()}
    return value
