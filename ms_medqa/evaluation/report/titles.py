"""What figures are called, in English and Chinese, and how they are written."""

from __future__ import annotations

from typing import NamedTuple


class Title(NamedTuple):
    """How a figure is shown.

    Attributes:
        en: its name in English.
        zh: its name in Chinese.
        form: format specification of its value.
        better: "higher", "lower", or None where neither is better.
    """

    en: str
    zh: str
    form: str
    better: str | None

    def name(self, language: str) -> str:
        return self.zh if language == "zh" else self.en


# In the order of the tables.
TITLES: dict[str, Title] = {
    "accuracy": Title("accuracy (likelihood)", "准确率（似然）", ".1%", "higher"),
    "accuracy_norm": Title("accuracy (likelihood, by length)", "准确率（似然，按长度归一）", ".1%", "higher"),
    "macro_f1": Title("macro F1 (likelihood)", "宏平均 F1（似然）", ".1%", "higher"),
    "letter_accuracy": Title("accuracy (written letter)", "准确率（生成的选项字母）", ".1%", "higher"),
    "letter_macro_f1": Title("macro F1 (written letter)", "宏平均 F1（生成的选项字母）", ".1%", "higher"),
    "generated_accuracy": Title("accuracy (written class)", "准确率（生成的类别）", ".1%", "higher"),
    "generated_macro_f1": Title("macro F1 (written class)", "宏平均 F1（生成的类别）", ".1%", "higher"),
    "parsed_rate": Title("answers that could be read", "可解析率", ".1%", "higher"),
    "perplexity": Title("perplexity", "困惑度", ".2f", "lower"),
    "bits_per_byte": Title("bits per byte", "每字节比特数", ".3f", "lower"),
    "token_accuracy": Title("next-token accuracy", "下一词元准确率", ".1%", "higher"),
    "bleu_4": Title("BLEU-4", "BLEU-4", ".1f", "higher"),
    "rouge_1": Title("ROUGE-1", "ROUGE-1", ".1%", "higher"),
    "rouge_2": Title("ROUGE-2", "ROUGE-2", ".1%", "higher"),
    "rouge_l": Title("ROUGE-L", "ROUGE-L", ".1%", "higher"),
    "exact_match": Title("exact match", "完全匹配", ".1%", "higher"),
    "char_f1": Title("character F1", "字符 F1", ".1%", "higher"),
    "token_f1": Title("token F1", "词 F1", ".1%", "higher"),
    "key_fact_rate": Title("answers with the key fact", "关键事实命中率", ".1%", "higher"),
    "answer_tokens": Title("answer length, tokens", "回答长度（词元）", ".1f", None),
    "finished_rate": Title("answers that end by themselves", "自行结束的回答", ".1%", "higher"),
    "repeated_4grams": Title("repeated 4-grams", "4-gram 重复率", ".1%", "lower"),
    "empty_rate": Title("empty answers", "空回答率", ".1%", "lower"),
}
# The first of these that a task has speaks for it in the summary and in charts.
HEADLINES = ("accuracy", "letter_accuracy", "generated_accuracy", "rouge_l", "bleu_4", "char_f1", "perplexity")


def title_of(figure: str) -> Title:
    """How a figure is shown; one without a title goes by its own name, three decimals, neither way better."""
    return TITLES.get(figure) or Title(figure, figure, ".3f", None)
