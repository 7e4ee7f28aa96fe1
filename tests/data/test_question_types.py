"""What a question asks for is told by its words, in Chinese and English."""

from __future__ import annotations

from collections import Counter

import pytest

from ms_medqa.data.question_types import TYPES, question_type

QUESTIONS = {
    "definition": (
        "什么是高血压？",
        "请问白癜风是什么病？",
        "骨质疏松是什么意思",
        "何谓代谢综合征？",
        "系统性红斑狼疮的定义是什么？",
        "医生说我有窦性心律不齐，这是什么意思？",
        "What is atrial fibrillation?",
        "What does hypoxia mean?",
        "Define sepsis.",
    ),
    "symptom": (
        "糖尿病有哪些症状？",
        "阑尾炎的典型表现是什么？",
        "肺炎患者会有什么体征？",
        "中风前有什么征兆？",
        "甲亢的人会感觉哪里不舒服？",
        "一氧化碳中毒会出现哪些症状？",
        "What are the symptoms of hypothyroidism?",
        "What are the early warning signs of a stroke?",
        "How does appendicitis usually present in children?",
    ),
    "treatment": (
        "急性胰腺炎怎么治疗？",
        "感冒发烧了怎么办？",
        "患者男，28岁，出现膝关节红肿、疼痛的症状，检查尿酸升高，应如何处理？",
        "胆结石一定要做手术吗？",
        "鼻出血时如何急救？",
        "膝骨关节炎的康复方法有哪些？",
        "检查发现胆囊息肉，需要怎么治？",
        "骨折之后怎样护理？",
        "How is asthma treated in adults?",
        "What is the best therapy for major depression?",
        "A 40-year-old man has gallstones on ultrasound. What is the most appropriate next step in management?",
        "Should a hernia be repaired surgically?",
    ),
    "drug": (
        "布洛芬的副作用有哪些？",
        "高血压患者应该吃什么药？",
        "阿莫西林每天的剂量是多少？",
        "二甲双胍片饭前吃还是饭后吃？",
        "孕妇可以服用对乙酰氨基酚吗？",
        "头孢和酒能一起用吗？",
        "阿司匹林的禁忌症是什么？",
        "What are the side effects of metformin?",
        "What is the usual dose of amoxicillin for a child?",
        "Which medication lowers LDL cholesterol?",
    ),
    "examination": (
        "肺结核需要做哪些检查？",
        "胃镜前要注意什么？",
        "血常规白细胞高说明什么问题？",
        "如何确诊乳腺癌？",
        "甲状腺结节怎么鉴别良恶性？",
        "空腹血糖的正常值是多少？",
        "一名患者发热、咳嗽三天，最可能的诊断是什么？",
        "How is celiac disease diagnosed?",
        "Which blood test shows kidney function?",
        "When should I have a colonoscopy?",
        "A 62-year-old woman has weight loss and jaundice. Which of the following is the most likely diagnosis?",
    ),
    "prevention": (
        "如何预防流感？",
        "老年人怎样防止跌倒？",
        "婴儿什么时候接种乙肝疫苗？",
        "怎么避免痛风复发？",
        "How can I prevent type 2 diabetes?",
        "How can I lower my risk of a heart attack?",
        "Who should get vaccinated against shingles?",
    ),
    "other": (
        "糖尿病患者可以吃西瓜吗？",
        "痛风的病因是什么？",
        "骨折应该挂哪个科室？",
        "肝癌患者能活多久？",
        "水痘会传染吗？",
        "Why do muscles cramp at night?",
        "Is psoriasis contagious?",
        "How long does a cold last?",
    ),
}


def test_nine_questions_in_ten_get_their_type() -> None:
    cases = [(question, kind) for kind, questions in QUESTIONS.items() for question in questions]
    assert len(cases) >= 60
    assert set(QUESTIONS) == set(TYPES)
    wrong = [(question, kind, question_type(question)) for question, kind in cases if question_type(question) != kind]
    assert len(wrong) <= len(cases) * 0.1, wrong
    # No type is missed altogether.
    for kind, count in Counter(kind for _, kind, _ in wrong).items():
        assert count <= len(QUESTIONS[kind]) / 3, (kind, wrong)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("糖尿病有什么症状？怎么治疗？", "treatment"),
        ("吃了降压药以后会有哪些症状？", "symptom"),
        ("Which drug treats malaria?", "drug"),
        ("What tests are done before treatment?", "examination"),
    ],
)
def test_the_word_that_is_asked_for_counts(question: str, kind: str) -> None:
    assert question_type(question) == kind


def test_width_and_case_do_not_matter() -> None:
    assert question_type("ＷＨＡＴ ARE THE SYMPTOMS OF FLU?") == "symptom"
    assert question_type("") == question_type("？？") == "other"
