"""Why records were skipped or not compared, in Chinese; what a reader of files says of one record stays as it is."""

from __future__ import annotations

import re

_WHOLE = {
    "bad encoding": "编码错误",
    "broken file": "文件损坏",
    "broken json": "JSON 损坏",
    "broken record": "记录损坏",
    "unknown columns": "无法识别的列",
    "undesirable": "被标为不合适的记录",
    "plain text has no question": "纯文本，没有问题",
    "the question is empty": "问题为空",
    "the answer is empty": "答案为空",
    "the text is empty": "文本为空",
    "no class": "没有类别",
    "no options, and no label yes, no or maybe": "没有选项，也没有 yes、no、maybe 标签",
    "the right option is not told": "没有给出正确选项",
    "several right options, which only an answer can name: eval.generate is false": "有多个正确选项，只能由生成的回答"
    "判定，而 eval.generate 为 false",
    "the question comes with a picture, which is not read": "题目带有图片，图片不会被读取",
    "the text has no tokens": "文本不含任何词元",
    "no item was measured": "没有测量任何条目",
    "an option has no tokens": "有选项不含任何词元",
    "the model's likelihood is not a finite number": "模型给出的似然不是有限数",
    "question": "问题相同",
    "near duplicate": "近似重复",
    "no model tells what it was trained on": "没有模型说明其训练数据",
}
_PATTERNS = tuple(
    (re.compile(pattern, re.DOTALL), words)
    for pattern, words in (
        (r"line (?P<line>\d+): (?P<rest>.+)", "第 {line} 行：{rest}"),
        (r"(?P<rest>.+): name the data with --train-data FOLDER", "{rest}；请用 --train-data FOLDER 指明数据"),
        (r"the right option (?P<label>'.*') is none of A to (?P<last>\w)", "正确选项 {label} 不在 A 至 {last} 之内"),
        (r"needs more positions, the model holds (?P<most>\d+)", "超出模型的 {most} 个位置"),
        (r"needs (?P<need>\d+) positions, the model holds (?P<most>\d+)", "需要 {need} 个位置，模型只有 {most} 个"),
        (r"the record belongs to the part (?P<part>\w+)", "记录属于 {part} 部分"),
        (r"(?P<n>\d+)-gram", "含相同的 {n}-gram"),
        (r"(?P<run>.+) lies in no run folder that tells what it was trained on", "{run} 所在目录没有说明训练数据"),
        (r"the data (?P<data>.+), on which (?P<run>.+) was trained, is not there", "{run} 的训练数据 {data} 已不存在"),
        (
            r"(?P<data>.+) has been converted anew since (?P<run>.+) was trained on it",
            "{data} 在 {run} 训练之后被重新转换过",
        ),
        # Of several models, each with its name.
        (r"(?P<name>[^:;]+): (?P<rest>needs [^;]+|an option has .+|the model's .+)", "{name}：{rest}"),
    )
)


def reason_zh(reason: str) -> str:
    """A reason in Chinese; one that is not known here as it is."""
    if reason in _WHOLE:
        return _WHOLE[reason]
    for pattern, words in _PATTERNS:
        if match := pattern.fullmatch(reason):
            parts = match.groupdict()
            return words.format(**parts | ({"rest": reason_zh(parts["rest"])} if "rest" in parts else {}))
    parts = reason.split("; ")
    return "；".join(map(reason_zh, parts)) if len(parts) > 1 else reason
