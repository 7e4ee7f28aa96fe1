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

# An option's letter before its text, the same further on, and what stands between two options. `A drug` has an article.
_MARK = (
    r"[-•]? ?(?:[Oo]ption |选项 ?)?\(?(?P<letter>[A-Za-z])"
    r"(?:\) ?[.:、,-]?|项?[.:、,。]| ?[-–—(]| (?=[\u3400-\u9fff])|(?<=[B-HJ-Z]) (?=[A-Za-z])) ?"
)
MARKED, MARKED_LATER = re.compile(_MARK), re.compile(rf"(?<=[\n .;。,]){_MARK}")
# The next line that begins with an option's letter, whatever is said of it; such a letter behind the text.
NEXT_LINE = re.compile(r"\n[-•]? ?(?:[Oo]ption |选项 ?)?\(?([A-Z])[.、:)]")
LETTER_BEHIND = re.compile(rf"{_CLOSE} ?[(\[](?:[Oo]ption |选项 ?)?([A-Z])(?:选?项)?[)\]]")
BETWEEN = re.compile(rf"{_CLOSE}[.。,;、]? ?\n?(?:and |和)?")

# What a letter or a text must have behind it: `C. difficile` and `B细胞` are no choice of C and B.
_EXPLANATION = (
    r"[【\[(]?(?:(?i:because|since|due to|as (?:it|the|this)|explanation|reason(?:ing)?|rationale)(?![A-Za-z])"
    r"|因为|由于|(?:答案|试题)?解析|(?:理由|原因|分析|解释)(?:是|如下|[】:]))"
)
LINE_END = re.compile(rf"{_CLOSE} ?(?:[.。!,;]? ?(?:\n|\Z)|[,.:;。]? ?{_EXPLANATION}|。(?! ?[(A-Z]))")
# The same where the answer was cut off, and where the text of an option must be all of its line.
UNFINISHED_END = re.compile(rf"{_CLOSE} ?(?:[.。!,;]? ?(?:\n|\Z)|[,.:;。]? ?{_EXPLANATION})")
WHOLE_LINE = re.compile(rf"{_CLOSE} ?[.。!,;]? ?(?:\n|\Z)")
SENTENCE_END = re.compile(rf"{_CLOSE} ?(?:\n|\Z|[,;:!。]|\.(?![A-Za-z0-9])(?! [a-z])|\.? ?{_EXPLANATION})")
# Where no comma will do: `So C, being …`.
FULL_STOP = re.compile(rf"{_CLOSE} ?(?:\n|\Z|[!。]|\.(?![A-Za-z0-9])(?! [a-z])|[,.;]? ?{_EXPLANATION})")
# After `(B)` a text may follow, but no `or (C)`.
BRACKETED = re.compile(r"(?<=\)) (?![^.\n]{0,120}\([A-Z]\))")
# The last character of a text within a longer word or number; `. Coli` behind the E; `A. … B. …`.
SAME_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9]|\.\d)")
SPECIES, TWO_WORDS = re.compile(r"\. ?([A-Za-z]+)"), re.compile(r"\b(\w)\w+ (?=(\w+))")
GOES_ON = re.compile(
    r"\(?A[.:、)](?:[^\n]{1,300}?(?<![A-Za-z0-9是为选:])(?<!is )(?<!: )(?<!tion )|[^\n]{0,300}\n\(?)B[.:、)]"
)

# What takes a choice back behind it: `or C`; `is wrong`, `. No, …`, `, but …`, `错误`, `?`.
OR = re.compile(r",? ?(?:or\b|或者?|还是|/|vs\b\.?) ?(?:[Oo]ption |选项)?\(?[A-Z](?![A-Za-z])")
DENIED = re.compile(
    r" ?[(:-]? ?(?:(?:is|was|are|would be) )?(?:not|wrong|incorrect|false|inappropriate|unlikely|isn't)\b"
    r"|[,.;!]? (?:(?:(?:which|that|this|it) ){1,2}(?:is|was) (?:not|wrong|incorrect|false)\b|no[,.]|wait\b)"
    r"|,? ?(?:but|however|although)\b|,?(?:但|不过|然而)"
    r"|[ :(-]{0,2}(?:是|为|均|都)?(?:不|错|非|并非|有误|吗)|[,;。] ?而?[这那]个?(?:选项|答案)?是?[不错]| ?\?"
    # The answer to another question is A, 而本题为….
    r"|[,;] ?(?:而|但|可)[本此该这]道?题|[,;] ?(?:while|whereas) this (?:question|case)\b",
    re.IGNORECASE,
)
# The rest of the sentence after `A. text`, and what refuses the option there, not `C is not` and `其余不正确`.
SENTENCE = re.compile(r"(?:[^\n.!?。]|\.(?=\S))*")
REFUSED = re.compile(
    r"(?<![A-Z] )(?<![A-Z]\) )(?<!others )(?<!options )(?<!choices )\b(?:is|was|are|would be|should be)(?: [a-z]+)?"
    r" (?:not|never|wrong|incorrect|false|inappropriate|unsuitable|ruled out|excluded|unlikely)\b"
    r"|\b(?:is|was)n't\b|\b(?:does|do|can|should|would|will)(?: not|n't) (?:be|fit|apply|answer|explain|match)\b"
    r"|\bcannot be\b"
    r"|(?<!is )(?<!are )(?<!was )(?<!be )\bnot (?:the |a )?"
    r"(?:first|best|correct|right|appropriate|indicated|recommended|(?:preferred|usual) )"
    r"|(?<![A-Z])(?<![A-Z]项)(?<!其余)(?<!其他)(?<!其它)(?<!选项)(?<!者)(?<!均)(?<!都)"
    r"(?:不(?:符合|作为|正确|对(?!称)|是|选|宜|首选|属于|能作为|应|考虑|适[合用宜]|推荐|建议)|并?非(?=首选|正确|最佳|本题)"
    r"|(?:是|为)?错误|(?:应|可|故|予以|因此)排除)"
)
# What takes it back before it is made, from where its clause begins: `I do not think that`, `如果`.
CLAUSE = re.compile(r"[,.;:!?。、\n]|\b(?:so|therefore|thus|hence|but)\b|故|因此|所以|综上|而\Z", re.IGNORECASE)
OTHERWISE = re.compile(
    r"\b(?:not|never|cannot|neither|n?or|either|if|unless|whether|unlikely|wrong|incorrect|false|another|other|plausible"
    r"|mistak(?:es?|en(?:ly)?)|misconceptions?|distractors?|traps?|error to|second(?! thought)"
    r"|(?:some|many) (?:people|students)|alternative|tempting|except|(?<!best )possible|(?<!no )doubt)\b|n't\b"
    r"|不|未|勿|并非|误|错|若|如果|假[如设]|是否|难以|无法|除|或|还是|有[人的些]|多数|很多人|考生|[上前]一?题|(?<!最)可能",
    re.IGNORECASE,
)

_OPTION = r"(?:both )?(?:(?:the )?(?:options?|choices?|letters?)\b:? ?)?"
# What stands before the letters, or the text, of a verdict. What takes it back is looked for before these words, or,
# where there is a group `head` or `tail`, before its end.
ANNOUNCED = re.compile(
    # The correct answer to this question is option …, "answer": …
    r"(?:(?:\b|(?<=correct))ans(?:wers?)?(?: option| choice)?"
    r"|\b(?:correct|right|best|final|appropriate) (?:options?|choices?|responses?|ones?))\b"
    r"(?: (?:to|for) [^.,:;\n]{1,60}?| here)?[\"')\]】]?(?: ?[:=]|"
    r" (?:is|are|would be|should be|must be)\b(?: (?:clearly|definitely|therefore|thus|indeed|actually)\b)?:?)"
    rf"\s?{_OPTION}"
    # [Answer] …, and a line, or a heading, that is just that
    r"|\[(?:final |correct )?answer\]:? ?|(?<![^\n])(?:(?:the )?(?:final|correct|best) )?answer\n"
    # I would choose option …
    rf"|\bI(?: would| will|'d|'ll)? (?:choose|select|pick|go with) {_OPTION}"
    # 正确答案应该是选项…, 【答案】…
    r"|正确的(?:选项)?(?:是|有|为|包括) ?:? ?(?:选项?)? ?"
    r"|(?:(?<!原)答案|(?:正确|最佳)的?(?:选项|选择)|最终选择)[】\])\"]?"
    r"(?:(?:应该|应当|应|就|只能|显然)?(?:是|为|选择?) ?:?| ?[:=]|(?<=[】\])]))\s?(?:选项?)? ?"
    r"|(?<![^\n])(?:正确|参考|最终|标准)?答案\n"
    # 故选…
    r"|(?<![备候筛评挑勿别慎忌禁莫])选(?:择|项为|项是)? ?:? ?"
    # \boxed{\text{…}}
    r"|\\boxed ?\{(?:\\\w+ ?\{)? ?",
    re.IGNORECASE,
)
# … not A but …, 不是A，而是…
INSTEAD = re.compile(
    rf"(?P<head>\bnot {_OPTION}[^.,;\n]{{1,60}}?,? but )(?:rather )?{_OPTION}"
    r"|(?P<tail>不(?:是|选|为|应选)[^。,;\n]{1,60}?,? ?而)(?:应该?|应当)?(?:是|为|选) ?:? ?(?:选项?)? ?",
    re.IGNORECASE,
)
# So …, it's …, select …, 应该是…: what stands there must be all of the sentence.
INFERRED = re.compile(
    rf"(?P<head>\b(?:so|thus|hence|therefore)),? (?:it(?:['’]s| is) |select |choose |pick )?{_OPTION}"
    rf"|\b(?:it|this)(?:['’]s| is| should be| must be| has to be):? {_OPTION}"
    rf"|(?:\A|(?<=[\n.,;:!?。])) ?(?:please |we )?(?:select|choose|pick):? {_OPTION}"
    r"|(?:\A|(?<=[\n.,;:!?。])) ?(?:应该|应当?)[是为]:? ?(?:选项?)?",
    re.IGNORECASE,
)
# The most likely diagnosis is …, 最可能的诊断是…: only a letter and its text.
SUBJECT = re.compile(
    r"(?P<head>\b(?:most|best|next|first|likely|correct|initial)\b[^.,:;!?\n]{1,100}?)"
    r" (?:is|are|would be|should be)\b:? ?"
    r"|(?P<tail>(?:最|首选|首要|正确)[^。,;:!?\n]{1,40}?)(?:应该|应当?)?[是为]:? ?",
    re.IGNORECASE,
)
# All of these in their order, with the end that a verdict must have; None: only a letter and its text.
VERDICTS = ((ANNOUNCED, SENTENCE_END), (INSTEAD, SENTENCE_END), (INFERRED, FULL_STOP), (SUBJECT, None))
# What clears the verdicts before it: `wait`, `不对`; a new one may follow at once.
RETRACTED = re.compile(
    r"(?:\A|(?<=[\n.,;:!?。(–—-])) ?(?:"
    r"(?:(?:oh|no|but|hold on),? )?(?:wait|actually|correction|on second thoughts?|hm+|sorry|scratch that"
    r"|(?:i|my) apolog(?:i[sz]e|ies)|let me (?:correct|reconsider|re-?think|re-?check))\b[,.:;!– —-]{0,5}"
    r"|(?:哦|噢|啊|但|不,?)?(?:不对(?![的称等])|等等|等一下|更正|抱歉|对不起|重新考虑)"
    r"(?:一下|后)?[为是]?[,.:;!。 ]{0,4}"
    # Only where a letter follows: `应为首选药` explains.
    r"|(?:应该|应当?)[是为]:? ?(?=[(\"“]?(?:选项?)?[A-Z](?![A-Za-z])))",
    re.IGNORECASE,
)
# The text of an option before the end of these is called the answer; what may stand before the text, or its letter.
CALLED = re.compile(
    r"(?: ?\((?P<letter>[A-Z])\)|[\"”’)\]])?(?: (?:is|are)"
    r"(?: (?:the|most|only|single|clearly|therefore|thus|indeed)){0,3} (?:correct|right|best|appropriate)"
    r" (?:answer|option|choice)s?\b|(?:是|为|才是|就是)(?:[本该此]题的?)?(?:正确|最佳)的?(?:答案|选项|选择))"
    r"(?= ?(?:[,.;!。\n]|\Z))"
)
CALLED_FROM = re.compile(
    r"(?:[\n.,;:!?。、)]|(?<![A-Za-z])(?:[Ss]o|[Tt]herefore|[Tt]hus|[Hh]ence|[Tt]hat|[Tt]hink|[Bb]elieve|[Tt]he)|故|所以|因此)"
    r" ?[(\"“'‘]?\Z"
)
LETTER_BEFORE = re.compile(r"(?<![A-Za-z0-9])([A-Z])(?:[.):、,]| -) ?\Z")
# Letters and what is said of them: that they are the answer, or only that they are right, as a statement may be too.
# `hepatitis B is …` and `维生素B正确` are about something else.
PASSED = re.compile(
    r"(?:^|[\n.;:!。]|(?<![A-Z]),|选项|答案|只有|仅|所以|因此|故"
    r"|\b(?:(?i:so|therefore|thus|hence|only|both|options?|choices?|answers?)|I (?:think|believe)(?: that)?)\b)"
    rf" ?(?P<letters>{_LIST})(?: (?:is|are)(?: (?:the|most|only|single|clearly|therefore|thus)){{0,2}}"
    r" (?:(?:(?:correct|right|best|appropriate) )?(?P<noun>answers?|options?|choices?)|correct|right|appropriate)\b"
    r"| ?(?:[两二三四五六七八2-8](?:者|个?选?项))?"
    r"(?:均|都|(?:是|为|才是|就是)(?:[本该此]题的?)?)?(?:正确|最佳|对|符合题意)的?(?:(?P<name>答案|选项|选择)[)】]?)?)"
    rf"(?= ?(?:[,.;!。\n]|\Z|{_EXPLANATION}))"
)

# A model's thoughts, what follows the token that ends its answer, tags, and Markdown and TeX around letters.
_THOUGHTS = re.compile(r"\A.*</think>", re.DOTALL)
_ENDED = re.compile(
    r"<\|(?:im_end|endoftext|end_of_text|eot_id|end|end[▁_]of[▁_]sentence|im_start)\|>|</s>|<eos>|<end_of_turn>"
)
_TAG, _TAG_END = re.compile(r"<answer>", re.IGNORECASE), re.compile(r"</answer>", re.IGNORECASE)
_MARKUP = re.compile(r"[*`$#_]|\\[()\[\]]")


def said(text: str) -> str:
    """An answer in NFKC without a model's thoughts before it and without what follows the token that ends it."""
    return _ENDED.split(unicodedata.normalize("NFKC", _THOUGHTS.sub("", text)), maxsplit=1)[0]


def plain(text: str) -> str:
    """A text without thoughts, control tokens, markup, full width and superfluous space; `(b)` becomes `(B)`."""
    text = said(text)
    text = _MARKUP.sub("", _TAG_END.sub("\n", _TAG.sub("\nAnswer: ", text)))
    lines = (" ".join(line.split()) for line in text.splitlines())
    return re.sub(r"\([a-z]\)", lambda match: match[0].upper(), "\n".join(line for line in lines if line))
