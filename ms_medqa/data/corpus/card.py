"""The data set card of medqa-mini."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

_CARD = """\
---
language: [zh]
license: apache-2.0
task_categories: [question-answering]
pretty_name: medqa-mini
---

# medqa-mini

{total} Chinese medical questions with answers, for trying a fine-tuning pipeline from end to end within minutes.

**A demonstration, not medical advice.** The answers are short textbook statements without a patient in view. They must
not be used to diagnose, to treat or to choose a medicine.

这是为 ms_medqa 编写的演示数据：{total} 条中文医学问答，由本项目自写的知识表和句式生成，
用于几分钟内走通“转换、训练、评估、问答”全流程。凡是同时含有 taught 部分某条知识的主语和答案的文本，
都不进入预训练语料；测试问题换了说法，可以检验微调是否真的学会了知识。各项选择只依据 val 部分，
测试问题在其后写成，不用于任何选择。内容仅供演示，不能代替医生的诊断和建议。

## Parts

| part | records | what |
|---|---|---|
| taught, train | {train} | {facts} facts in fourteen wordings each; nine name the subject alone, one has a context |
| taught, val | {val} | every fact twice: in a wording close to the training, and in one far from it |
| taught, test | {test} | every fact in content words that its kind lacks in training, never with a context |
| general | {general} | common diseases, drugs, examinations and first aid; {with_context} with a context |

## Fields

| field | meaning |
|---|---|
| `id` | derived from the question, so it stays the same when other records come or go |
| `question` | what is asked |
| `context` | knowledge that holds the answer; absent where there is none |
| `answer` | one or two sentences of 12 to 60 characters |
| `key` | what a right answer must contain (taught part only) |
| `part` | `taught` or `general` |
| `split` | `train`, `val` or `test` (taught part only) |

## Split rule

The taught part is split by wording and not by fact: a fact that is in no training record cannot be answered. Apart from
the subject, the test question shares no content word (two characters or more, question words aside) with the question
forms of its kind of fact that are used for training. The general part has no split of its own: a
converter deals it by its usual rule.

## How to read a test figure

The training wordings and the settings of `ms-medqa demo` were chosen by the validation part. Its harder wordings were
the test part of three earlier versions: once a figure on them had led to a choice, they were moved, and new test
wordings written. The present ones, three to each kind of fact, which take turns among its facts, were written before
any model was asked them, and no choice rests on how they are answered. Please keep it so: try things on the validation
part. A figure on the test part shows that fine-tuning put the facts into the model; it is no estimate for questions of
another kind, and it says nothing of facts that were not taught.

## How it was made

The tables behind it were written for this project from general textbook knowledge, and a generator fills sentence
forms from them; no sentence is copied from elsewhere. `facts_taught.yaml` holds the taught facts: every subject stands
in exactly one of them. A text that holds the subject and the key of a taught fact is left out of the pre-training text
of `medqa-tiny` and of the general part here, so that fine-tuning is what teaches the fact. The same tables always give
the same bytes:

```
python -m ms_medqa.data.corpus mini --output ms_medqa/assets/medqa-mini
```

## Limits

Short questions of a few kinds, one correct answer each, generated wording. A model that does well here has learnt these
sentences; it has not learnt medicine.

## Licence

Apache-2.0, the ms_medqa authors.
"""


def card(records: Sequence[Mapping[str, str]]) -> str:
    """The card in Markdown, with the counts of these records."""
    splits = Counter(record.get("split", "general") for record in records)
    with_context = sum(record["part"] == "general" and "context" in record for record in records)
    return _CARD.format(total=f"{len(records):,}", facts=splits["test"], with_context=with_context, **splits)
