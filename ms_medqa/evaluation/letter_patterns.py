"""How answers to exam questions are worded, in English and in Chinese; all for text that `plain` made.

Letters of options stand in capitals, for a small one may be an article.
"""

from __future__ import annotations

import re
import unicodedata

_OPEN, _CLOSE = r"[(\[{\"'“‘「【]{0,2}", r"[)\]}\"'”’」】]{0,2}"
OPENED = re.compile(_OPEN)

# `B`, `(B)`, `option B`, `B项`, and `ABD`; not the C of `37°C`.
_ITEM = (
    rf"(?:[Oo]ptions? |[Cc]hoices? |选项 ?)?{_OPEN}(?<![A-Za-z0-9°])[A-Z]{{1,26}}(?![A-Za-z0-9]){_CLOSE}"
    r"(?: ?(?:选?项|option\b|choice\b))?"
)
_LIST = rf"{_ITEM}(?:(?: ?(?:[,、;&+]|和|与|及|以及) ?(?:and |和)?| and | ){_ITEM}){{0,25}}"
# A small letter with nothing behind it is no article.
_SMALL = rf"{_OPEN}[a-z](?![A-Za-z0-9]){_CLOSE}(?=[.。]? ?(?:\n|\Z))"
# Letters, and each run of them.
CHOSEN, RUN = re.compile(f"{_LIST}|{_SMALL}"), re.compile("(?<![A-Za-z])(?:[A-Z]+|[a-z])(?![A-Za-z])")

# An option's letter before its text, the same further on, and what stands between two options.
_MARK = r"[-•]? ?(?:[Oo]ption |选项 ?)?\(?(?P<letter>[A-Za-z])(?:\) ?[.:、,-]?|项?[.:、,。]| ?[-–—(]) ?"
MARKED, MARKED_LATER = re.compile(_MARK), re.compile(rf"(?<=[\n .;。,]){_MARK}")
BETWEEN = re.compile(rf"{_CLOSE}[.。,;、]? ?\n?(?:and |和)?")

# What a letter or a text must have behind it: `C. difficile` and `B细胞` are no choice of C and B.
_EXPLANATION = (
    r"[【\[(]?(?:(?i:because|since|due to|as (?:it|the|this)|explanation|reason(?:ing)?|rationale)(?![A-Za-z])"
    r"|因为|由于|(?:答案|试题)?解析|(?:理由|原因|分析|解释)(?:是|如下|[】:]))"
)
LINE_END = re.compile(rf"{_CLOSE} ?(?:[.。!,;]? ?(?:\n|\Z)|[,.:;。]? ?{_EXPLANATION}|。(?! ?[(A-Z]))")
SENTENCE_END = re.compile(rf"{_CLOSE} ?(?:\n|\Z|[,;:!。]|\.(?![A-Za-z0-9])(?! [a-z])|\.? ?{_EXPLANATION})")
# After `(B)` a text may follow, but no `or (C)`.
BRACKETED = re.compile(r"(?<=\)) (?![^.\n]{0,120}\([A-Z]\))")
# The last character of a text within a longer word or number; `. Coli` behind the E; `A. … B. …`.
SAME_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9]|\.\d)")
SPECIES = re.compile(r"\. ?([A-Za-z]+)")
GOES_ON = re.compile(
    r"\(?A[.:、)](?:[^\n]{1,300}?(?<![A-Za-z0-9是为选:])(?<!is )(?<!: )(?<!tion )|[^\n]{0,300}\n\(?)B[.:、)]"
)

# What takes a choice back behind it: `or C`; `is wrong`, `. No, …`, `, but …`, `错误`, `?`.
OR = re.compile(r",? ?(?:or\b|或者?|还是|/|vs\b\.?) ?(?:[Oo]ption |选项)?\(?[A-Z](?![A-Za-z])")
DENIED = re.compile(
    r" ?[(:-]? ?(?:(?:is|was|are|would be) )?(?:not|wrong|incorrect|false|inappropriate|unlikely|isn't)\b"
    r"|[,.;!]? (?:(?:(?:which|that|this|it) ){1,2}(?:is|was) (?:not|wrong|incorrect|false)\b|no[,.]|wait\b)"
    r"|,? ?(?:but|however|although)\b|,?(?:但|不过|然而)"
    r"|[ :(-]{0,2}(?:是|为|均|都)?(?:不|错|非|并非|有误|吗)|[,;。] ?而?[这那]个?(?:选项|答案)?是?[不错]| ?\?",
    re.IGNORECASE,
)
# What takes it back before it is made, from where its clause begins: `I do not think that`, `如果`.
CLAUSE = re.compile(r"[,.;:!?。、\n]|\b(?:so|therefore|thus|hence|but)\b|故|因此|所以|综上", re.IGNORECASE)
OTHERWISE = re.compile(
    r"\b(?:not|never|cannot|neither|n?or|either|if|unless|whether|unlikely|wrong|incorrect|false|another|other|plausible"
    r"|alternative|tempting|except|(?<!best )possible|(?<!no )doubt)\b|n't\b"
    r"|不|未|并非|误|错|若|如果|假[如设]|是否|难以|无法|除|或|还是|有[人的些]|多数|很多人|考生|(?<!最)可能",
    re.IGNORECASE,
)

_OPTION = r"(?:both )?(?:(?:the )?(?:options?|choices?|letters?)\b:? ?)?"
# What stands before the letters, or the text, of a verdict.
ANNOUNCED = re.compile(
    # The correct answer to this question is option …
    r"\b(?:ans(?:wers?)?(?: option| choice)?|(?:correct|right|best|final|appropriate) (?:options?|choices?))\b"
    r"(?: (?:to|for) [^.,:;\n]{1,60}?| here)?[)\]】]?(?: ?[:=]|"
    r" (?:is|are|would be|should be|must be)\b(?: (?:clearly|definitely|therefore|thus|indeed|actually)\b)?:?)"
    rf"\s?{_OPTION}"
    # I would choose option …
    rf"|\bI(?: would| will|'d|'ll)? (?:choose|select|pick|go with) {_OPTION}"
    # 正确答案应该是选项…, 【答案】…
    r"|正确的是 ?:? ?(?:选项?)? ?|(?:(?<!原)答案|(?:正确|最佳)的?(?:选项|选择)|最终选择)[】\])]?"
    r"(?:(?:应该|应当|应|就|只能|显然)?(?:是|为|选择?) ?:?| ?[:=]|(?<=[】\])]))\s?(?:选项?)? ?"
    # 故选…
    r"|(?<![备候筛评挑])选(?:择|项为|项是)? ?:? ?"
    # \boxed{\text{…}}
    r"|\\boxed ?\{(?:\\\w+ ?\{)? ?",
    re.IGNORECASE,
)
# Letters and what is said of them: that they are the answer, or only that they are right, as a statement may be too.
# `hepatitis B is …` and `维生素B正确` are about something else.
PASSED = re.compile(
    r"(?:^|[\n.;:!。]|(?<![A-Z]),|选项|答案|只有|仅|所以|因此|故"
    r"|\b(?:(?i:so|therefore|thus|hence|only|both|options?|choices?|answers?)|I (?:think|believe)(?: that)?)\b)"
    rf" ?(?P<letters>{_LIST})(?: (?:is|are)(?: (?:the|most|only|single|clearly|therefore|thus)){{0,2}}"
    r" (?:(?:(?:correct|right|best|appropriate) )?(?P<noun>answers?|options?|choices?)|correct|right|appropriate)\b"
    r"| ?(?:均|都|(?:是|为|才是|就是)(?:[本该此]题的?)?)?(?:正确|最佳|对)的?(?:(?P<name>答案|选项|选择)[)】]?)?)"
    rf"(?= ?(?:[,.;!。\n]|\Z|{_EXPLANATION}))"
)

# A model's thoughts, and Markdown and TeX around letters.
_THOUGHTS = re.compile(r"\A.*</think>", re.DOTALL)
_MARKUP = re.compile(r"[*`$#_]|\\[()\[\]]")


def plain(text: str) -> str:
    """A text without thoughts, markup, full width and superfluous white space; `(b)` becomes `(B)`."""
    text = _MARKUP.sub("", unicodedata.normalize("NFKC", _THOUGHTS.sub("", text)))
    lines = (" ".join(line.split()) for line in text.splitlines())
    return re.sub(r"\([a-z]\)", lambda match: match[0].upper(), "\n".join(line for line in lines if line))
