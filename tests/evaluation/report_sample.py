"""A report with everything in it, and with what could break a page: hostile names, long texts, absent keys, nulls."""

from __future__ import annotations

import math
import random
from typing import Any

SCRIPT = '</script><script>alert("1")</script>'
IMAGE = '"><img src=http://evil.example/x onerror=alert(1)>'
PIPES = "a|b\n| `c` *d* _e_ [f](http://evil.example) {{ 7 * 7 }}"
SUBJECTS = (
    "心血管内科",
    "Cardiology",
    "神经内科学与临床神经电生理学基础（含实习）",
    "Pharmacology",
    "儿科学",
    SCRIPT,
    "麻醉学 | 疼痛",
)
LABELS = ("症状", "药物", "检查", SCRIPT)
LONG = "高血压患者应当低盐饮食，规律服药，定期测量血压，避免情绪激动。" * 40


def sample() -> dict[str, Any]:
    """A new copy, the same each time."""
    return {
        "format": 1,
        "created": "2026-11-30T23:50:00Z",
        "seconds": 1234.5,
        "title": "医学问答评估 / medical QA",
        "commands": [
            "ms-medqa convert records.jsonl --output data/qa",
            "ms-medqa train configs/lora_medqa_tiny.yaml data.path=data/qa output_dir=output/qa",
            "ms-medqa eval --model medqa-tiny --adapter output/qa/adapter --data data/qa/test.jsonl --output 'out <1>'",
        ],
        "versions": {"ms_medqa": "0.1.0", "mindspore": "2.10.0", "python": "3.12.3", "sacrebleu": "2.5.1"},
        "signatures": {
            "bleu_4": "nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:2.5.1",
            "问答: rouge_l": "rouge-chinese 1.0.3 over jieba 0.42.1 words",
        },
        "device": "CPU",
        "seed": 42,
        "ranks": 2,
        "config": {
            "model": {"path": "medqa-tiny"},
            "lora": {"rank": 8, "target": ["q_proj", "v_proj"]},
            "备注": SCRIPT,
        },
        "models": [
            {
                "name": "base",
                "model": "medqa-tiny",
                "adapter": None,
                "base": None,
                "prompt": "medqa",
                "digest": "a" * 64,
            },
            {
                "name": "tuned",
                "model": "medqa-tiny",
                "adapter": "output/qa/adapter",
                "base": "base",
                "prompt": "medqa",
                "digest": "b" * 64,
                "tokenizer": "tokenizer-fingerprint",
            },
            {"name": "微调 <b>二</b>", "model": IMAGE, "adapter": "output/二", "base": "base"},
        ],
        "tasks": [_qa(), _choice(), _classify(), _general()],
        "training": {
            "tuned": {
                "train": [[step, 6 * math.exp(-step / 300) + 0.4, 2e-4 * (1 - step / 2000)] for step in range(1, 2001)],
                "validation": [[step, 6 * math.exp(-step / 300) + 0.6] for step in range(200, 2001, 200)],
            },
            "微调 <b>二</b>": {"train": [[1, 5.0, None], [2, None, 1e-4], [3, 4.5, 1e-4]]},
        },
        "data_report": {
            "tuned": {
                "read": 1300,
                "kept": {"train": 900, "val": 120, "test": 80},
                "augmented": 30,
                "rejected": {"too_short": 50, "duplicate": 150},
                "repeated": 17,
                "mixed": [{"path": "general.jsonl", "taken": 77, "tokens": 9000}],
                "tokens": {"train": {"total": 123456, "trained": 65432, "record": {"min": 1, "max": 9}}},
            }
        },
        "trained_with": {"tuned": {"train": {"learning_rate": 0.000321}, "名": SCRIPT}},
    }


def _figure(value: float | None, half: float, n: int = 300) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "n": n}
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def _difference(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _qa() -> dict[str, Any]:
    draw = random.Random(0)
    long = [draw.randrange(3, 256) for _ in range(300)]
    return {
        "name": "问答",
        "kind": "qa",
        "general": False,
        "data": {"path": "data/qa/test.jsonl", "sha256": "c" * 64},
        "read": 310,
        "n": 300,
        "skipped": {
            "count": 10,
            "reasons": {"the answer is empty": 4, "too long: " + PIPES: 6},
            "items": [{"id": f"records.jsonl:{i}", "reason": "the answer is empty"} for i in range(4)]
            + [{"id": SCRIPT, "reason": "too long: " + PIPES}] * 6,
        },
        "figures": {
            "base": {
                "perplexity": _figure(285.104, 40),
                "token_accuracy": _figure(0.271, 0.011),
                "bleu_4": _figure(0.04, 0.02),
                "rouge_1": _figure(0.151, 0.01),
                "rouge_2": _figure(0.012, 0.005),
                "rouge_l": _figure(0.113, 0.009),
                "exact_match": _figure(0.0, 0.0),
                "char_f1": _figure(0.137, 0.012),
                "token_f1": _figure(0.119, 0.013),
                "key_fact_rate": _figure(0.0, 0.009, 198),
                "answer_tokens": _figure(61.37, 4),
                "finished_rate": _figure(0.423, 0.05),
                "repeated_4grams": _figure(0.317, 0.03),
                "empty_rate": _figure(0.0167, 0.01),
            },
            "tuned": {
                "perplexity": _figure(1.412, 0.04),
                "token_accuracy": _figure(0.911, 0.008),
                "bleu_4": _figure(48.63, 3.1),
                "rouge_1": _figure(0.701, 0.02),
                "rouge_2": _figure(0.587, 0.02),
                "rouge_l": _figure(0.663, 0.021),
                "exact_match": _figure(0.211, 0.04),
                "char_f1": _figure(0.729, 0.02),
                "token_f1": _figure(0.689, 0.02),
                "key_fact_rate": _figure(0.944, 0.03, 198),
                "answer_tokens": _figure(22.19, 1),
                "finished_rate": _figure(0.997, 0.004),
                "repeated_4grams": _figure(0.0031, 0.002),
                "empty_rate": _figure(0.0, 0.005),
            },
            "微调 <b>二</b>": {
                "perplexity": _figure(None, 0),
                "rouge_l": _figure(0.121, 0.01),
                "unknown|figure": {"value": 3},
            },
        },
        "differences": {
            "tuned": {
                "base": "base",
                "same_weights": True,
                "figures": {
                    "perplexity": _difference(-283.692, 40),
                    "token_accuracy": _difference(0.64, 0.013),
                    "rouge_l": _difference(0.55, 0.023),
                    "key_fact_rate": _difference(0.944, 0.03),
                    "answer_tokens": _difference(-39.18, 4.1),
                    "empty_rate": _difference(-0.0167, 0.02),
                },
                "mcnemar": {"key_fact_rate": {"only_base": 0, "only_tuned": 187, "p": 1e-56}},
            },
            "微调 <b>二</b>": {
                "base": "base",
                "incomparable": ["token_accuracy"],
                "figures": {"rouge_l": _difference(0.008, 0.011), "perplexity": None},
            },
        },
        "groups": {
            name: {
                "n": 90 - 13 * place,
                "figures": {
                    "base": {"rouge_l": _figure(0.1 + place / 100, 0.05, 90 - 13 * place)},
                    "tuned": {"rouge_l": _figure(0.8 - place / 20, 0.1 + place / 100, 90 - 13 * place)},
                },
                "differences": {"tuned": {"base": "base", "figures": {"rouge_l": _difference(0.7 - place / 20, 0.1)}}},
            }
            for place, name in enumerate(SUBJECTS)
        },
        "charts": {
            "answer_tokens": {"base": long, "tuned": [length // 4 for length in long]},
            "repeated_4grams": {"base": [length / 256 for length in long], "tuned": [0.0] * 299 + [1.0]},
        },
        "decoding": {"method": "greedy", "max_new_tokens": 64},
        "empty": {"base": {"count": 5, "ids": ["7", PIPES, SCRIPT]}, "tuned": {"count": 0, "ids": []}},
        "ungrouped": 1,
        "score": "token_f1",
        "compared": {"tuned": "tuned", "base": "base"},
        "examples": [
            {
                "id": "1",
                "gain": 0.33217,
                "picks": {"base": {"likeliest": "the pick | " + SCRIPT, "written": None}},
                "question": "对乙酰氨基酚进入人体过多时，宜用何种药物治疗？" + SCRIPT,
                "context": "对乙酰氨基酚（paracetamol）过量会损害肝脏。\n\n解毒药为乙酰半胱氨酸。",
                "reference": "对乙酰氨基酚的解毒药为乙酰半胱氨酸，须由医生使用。",
                "answers": {"base": IMAGE, "tuned": "乙酰半胱氨酸。", "微调 <b>二</b>": LONG},
                "scores": {"base": 0.1, "tuned": 0.43217, "微调 <b>二</b>": None},
            },
            {
                "id": "2",
                "gain": -0.2,
                "question": PIPES,
                "reference": LONG,
                "answers": {"base": "", "tuned": "\ud83d\x1b[2J\u202e"},
            },
            {"id": "3", "question": "W" * 400},
        ],
        "overlap": {"checked": True, "train": "data/qa/train.jsonl", "items": 0, "of": 300, "ids": []},
    }


def _choice() -> dict[str, Any]:
    return {
        "name": "MedQA " + SCRIPT,
        "kind": "choice",
        "data": {"path": "medqa/" + IMAGE},
        "read": 1280,
        "limit": 1273,
        "n": 1273,
        "too_many_groups": 301,
        "figures": {
            "base": {
                "accuracy": _figure(0.2537, 0.024, 1273),
                "accuracy_norm": _figure(0.2561, 0.024, 1273),
                "macro_f1": _figure(0.2223, 0.025, 1273),
                "letter_accuracy": _figure(0.2011, 0.022, 1273),
                "letter_macro_f1": _figure(0.1987, 0.022, 1273),
                "parsed_rate": _figure(0.8123, 0.02, 1273),
            },
            "tuned": {
                "accuracy": _figure(0.2741, 0.025, 1273),
                "accuracy_norm": _figure(0.2772, 0.025, 1273),
                "macro_f1": _figure(0.2666, 0.025, 1273),
                "letter_accuracy": _figure(0.2345, 0.023, 1273),
                "letter_macro_f1": _figure(0.2311, 0.023, 1273),
                "parsed_rate": _figure(0.9912, 0.005, 1273),
            },
        },
        "differences": {
            "tuned": {
                "base": "base",
                "figures": {"accuracy": _difference(0.0204, 0.03), "macro_f1": _difference(0.0443, 0.0441)},
                "mcnemar": {"accuracy": {"only_base": 110, "only_tuned": 136, "p": 0.11027}},
            }
        },
        "groups": {
            f"subject {place}" if place % 2 else f"第 {place} 科": {
                "n": 60 - place,
                "figures": {
                    "base": {"accuracy": _figure(0.25, 0.12, 60 - place), "macro_f1": _figure(0.2, 0.1, 60 - place)},
                    "tuned": {"accuracy": _figure(0.3, 0.12, 60 - place), "macro_f1": _figure(None, 0, 60 - place)},
                },
                "differences": {
                    "tuned": {
                        "base": "base",
                        "same_weights": True,
                        "figures": {"accuracy": _difference(0.05 + place / 1000, 0.04)},
                        "mcnemar": {"accuracy": {"only_base": 1, "only_tuned": 9 + place, "p": 0.2 / (1 + place)}},
                    }
                }
                if place < 44
                else None,
            }
            for place in range(45)
        },
        "overlap": {
            "checked": True,
            "train": "data/qa/train.jsonl",
            "items": 3,
            "of": 1273,
            "ids": [IMAGE],
            "unread": 2,
            "reasons": {"the question": 2, "a near copy": 1},
            "models": {"base": True, "tuned": False},
        },
    }


def _classify() -> dict[str, Any]:
    return {
        "name": "科室分类",
        "kind": "classify",
        "read": 64,
        "n": 60,
        "skipped": {"count": 4, "items": [{"id": "x", "reason": "no label"}] * 4},
        "figures": {
            "base": {
                "accuracy": _figure(0.5333, 0.12, 60),
                "macro_f1": _figure(0.4893, 0.12, 60),
                "generated_accuracy": _figure(0.3167, 0.12, 60),
                "generated_macro_f1": _figure(0.2955, 0.12, 60),
            },
            "tuned": {"accuracy": _figure(0.4167, 0.12, 60), "macro_f1": _figure(0.3891, 0.12, 60)},
        },
        "differences": {"tuned": {"base": "base", "figures": {"accuracy": _difference(-0.1167, 0.1163)}}},
        "confusion": {
            "tuned": {
                "labels": list(LABELS),
                "counts": [[10, 2, 3, 0], [1, 8, 4, 2], [0, 12, 3, 0], [5, 5, 1, 4]],
            }
        },
        "overlap": {"checked": False, "why": "no training data was named | " + SCRIPT},
    }


def _general() -> dict[str, Any]:
    return {
        "name": "wiki 通用",
        "kind": "perplexity",
        "general": True,
        "read": 50,
        "n": 50,
        "figures": {
            "base": {
                "perplexity": _figure(18.31, 1, 50),
                "token_accuracy": _figure(0.4141, 0.01, 50),
                "bits_per_byte": _figure(1.1414, 0.02, 50),
            },
            "tuned": {
                "perplexity": _figure(21.87, 1.2, 50),
                "token_accuracy": _figure(0.3977, 0.01, 50),
                "bits_per_byte": _figure(1.2121, 0.02, 50),
            },
        },
        "differences": {
            "tuned": {
                "base": "base",
                "figures": {"perplexity": _difference(3.56, 0.4), "bits_per_byte": _difference(0.0707, 0.0705)},
            }
        },
    }
