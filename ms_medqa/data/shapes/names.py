"""Column names by which fields are found, the likelier first; all in lower case, as `Row` looks them up."""

from __future__ import annotations

QUESTION = (
    "question", "query", "prompt", "questions", "ask", "instruction", "problem", "human", "user", "q",
    "问题", "提问", "提问内容", "患者提问", "患者问题", "题目", "题干", "问",
)  # fmt: skip
# Names that hold the text of a post, whose title is a part of the question too.
BODY = (
    "question_text", "ask", "content", "body", "patient", "description",
    "提问", "提问内容", "患者提问", "描述", "病情描述", "内容",
)  # fmt: skip
# `question` is a title only beside `question_text`; beside any other body it is the question itself.
TITLE = ("question", "title", "标题", "主题")
ANSWER = (
    "answer", "response", "output", "completion", "long_answer", "answers", "reply", "target", "ideal_answer",
    "answer_text", "best_answer", "correct_answer", "assistant", "bot", "doctor", "答案", "回答", "回复", "解答",
    "医生回答", "医生回复", "答",
)  # fmt: skip
CONTEXT = (
    "context", "contexts", "knowledge", "passage", "background", "evidence", "support", "abstract",
    "上下文", "知识", "背景", "背景知识", "参考资料", "资料",
)  # fmt: skip
PLURAL = ("questions", "answers", "contexts")
SYSTEM = ("system", "system_prompt")
ID = ("id", "_id", "pubid", "qid", "question_id")
# Preference data: the better and the worse of two answers; a mark whose `false` says that the answer is a bad one.
CHOSEN, REJECTED = "chosen", "rejected"
DESIRABLE = ("kto_tag",)
# Elsewhere a label may be a class, such as PubMedQA's yes and no; a dialogue has no classes.
DESIRABLE_DIALOGUE = ("label",)
PICTURE = ("image", "picture", "images", "pictures")
LABEL = ("label", "answer_idx", "final_decision")
TEXT = ("text", "正文", "文本")
# Names that may just as well hold a question, so they are taken for plain text only where the user says so.
TEXT_BY_WISH = (*TEXT, "content", "内容")
DIALOGUE = ("conversations", "conversation", "messages", "dialogue", "dialog", "utterances", "turns", "对话")

STEM = (*QUESTION, "stem", "qtext", "试题")
OPTIONS = ("options", "option", "choices", "选项", "candidates")
EXPLANATION = ("explanation", "exp", "rationale", "solution", "analysis", "解析", "答案解析")
# Columns that can hold nothing but which option is right.
RIGHT_OPTION = (
    "answer_idx", "answer_index", "cop", "answerkey", "answer_key", "correct_option", "correct_answer_idx",
    "correct_choice", "answer_letter", "正确选项",
)  # fmt: skip
EXAM_ANSWER = (
    "answer", "correct_answer", "正确答案", "答案", "answers", "correct", "target", "output", "gold",
    "correct_answers",
)  # fmt: skip
HINT = (*CONTEXT, "hint")
