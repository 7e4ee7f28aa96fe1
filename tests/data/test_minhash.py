"""Near duplicates: found as exact Jaccard similarity finds them, the same on every machine, in bounded memory."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ms_medqa.data import minhash
from ms_medqa.data.banding import clusters, near_duplicates
from ms_medqa.data.minhash import record_signatures, signature, signatures, similarity
from ms_medqa.data.shingles import token_hashes

PARTS = ("患者", "出现", "发热", "咳嗽", "三天", "没有", "头痛", "血压", "正常", "应该", "如何", "治疗", "检查", "需要")


def shingle_sets(texts: list[str]) -> list[set[int]]:
    """The token 3-grams of each text, hashed."""
    hashes, offsets = token_hashes(texts).ngrams(3, whole_if_shorter=True)
    return [set(part.tolist()) for part in np.split(hashes, offsets[1:-1])]


def jaccard(first: set[int], second: set[int]) -> float:
    """Exact."""
    return len(first & second) / len(first | second)


def varied(count: int, seed: int, length: int = 30) -> list[str]:
    """Texts of which about half are changed copies of earlier ones."""
    rng = random.Random(seed)
    texts: list[str] = []
    while len(texts) < count:
        if texts and rng.random() < 0.5:
            base = rng.choice(texts)
            for _ in range(rng.randrange(4)):
                place = rng.randrange(len(base))
                base = base[:place] + rng.choice(PARTS) + base[place + rng.randrange(3) :]
            texts.append(base)
        else:
            texts.append("".join(rng.choice(PARTS) for _ in range(length)))
    return texts


def first_near(signs: np.ndarray, threshold: float) -> list[int]:
    """Every pair compared."""
    result = []
    for index in range(len(signs)):
        near = np.flatnonzero(similarity(signs[:index], signs[index]) >= threshold - 1e-9)
        result.append(int(near[0]) if near.size else -1)
    return result


def test_case_width_space_and_punctuation_make_no_difference() -> None:
    a, b = signatures(["高血压患者能吃柚子吗？What about ASPIRIN?", "高血压 患者,能吃柚子吗 what about ａｓｐｉｒｉｎ"])
    assert np.array_equal(a, b)
    assert a.dtype == np.uint32
    assert a.shape == (minhash.NUM_PERM,)


def test_words_of_english_and_characters_of_chinese_are_the_tokens() -> None:
    assert token_hashes(["high blood-pressure", "高血压 type 2糖尿病", "血糖6.1mmol", "", "？！"]).counts.tolist() == [
        3,
        8,
        4,
        0,
        2,
    ]
    # The same words in another order are another text.
    assert similarity(signature("a causes b in c"), signature("b causes a in c")) < 0.5


def test_the_estimate_is_the_jaccard_similarity() -> None:
    texts = varied(300, seed=1)
    signs = signatures(texts, num_perm=256)
    pairs = [(i, j) for i in range(300) for j in range(i) if (i + j) % 7 == 0]
    sets = shingle_sets(texts)
    exact = np.array([jaccard(sets[i], sets[j]) for i, j in pairs])
    estimate = np.array([similarity(signs[i], signs[j]) for i, j in pairs])
    some = exact > 0.1
    assert some.sum() > 200
    assert abs((estimate - exact)[some].mean()) < 0.01
    # The standard error is √(J(1 - J) / 256) ≤ 0.031.
    assert np.sqrt(((estimate - exact)[some] ** 2).mean()) < 0.04


def test_what_is_far_above_the_threshold_is_found_and_far_below_is_not() -> None:
    texts = varied(400, seed=2)
    sets = shingle_sets(texts)
    found = near_duplicates(signatures(texts), 0.8)
    for index, earlier in enumerate(found.tolist()):
        if earlier >= 0:
            assert earlier < index
            assert jaccard(sets[index], sets[earlier]) > 0.6
        else:
            assert all(jaccard(sets[index], earlier) < 0.95 for earlier in sets[:index])
    assert 100 < (found >= 0).sum() < 300


@pytest.mark.parametrize(
    ("threshold", "num_perm"), [(0.6, 64), (0.7, 64), (0.8, 64), (0.9, 64), (1.0, 64), (0.8, 60), (0.8, 512)]
)
def test_banding_misses_no_pair(threshold: float, num_perm: int) -> None:
    signs = signatures(varied(600, seed=3), num_perm)
    expected = first_near(signs, threshold)
    assert near_duplicates(signs, threshold).tolist() == expected
    labels = clusters(signs, threshold)
    for index, earlier in enumerate(expected):
        if earlier >= 0:
            assert labels[index] == labels[earlier]
    # Different clusters hold no near pair, and a cluster is named by its first text.
    for index in range(600):
        near = np.flatnonzero(similarity(signs, signs[index]) >= threshold - 1e-9)
        assert len(set(labels[near])) == 1
    assert all(np.flatnonzero(labels == label)[0] == label for label in np.unique(labels))


def test_a_chain_of_small_changes_is_one_cluster() -> None:
    words = [f"word{i}" for i in range(60)]
    chain = [" ".join(words[i : i + 50]) for i in range(10)]
    signs = signatures(chain)
    assert similarity(signs[0], signs[9]) < 0.8
    assert clusters(signs, 0.8).tolist() == [0] * 10


def test_texts_that_do_not_count_link_nothing() -> None:
    words = [f"word{i}" for i in range(60)]
    chain = [" ".join(words[i : i + 50]) for i in range(0, 10, 3)]
    signs = signatures([*chain, *varied(300, seed=10), *chain])
    assert len(set(clusters(signs, 0.8)[:4])) == 1
    among = np.delete(np.arange(len(signs)), [1, 7, 20, 21, 22, 305])
    found = clusters(signs, 0.8, among)
    assert np.array_equal(found, clusters(signs[among], 0.8))
    assert len(set(found[:3])) == 2


def test_thousands_of_copies_cost_no_more_than_one() -> None:
    texts = ["多喝水，注意休息。"] * 20000 + ["按医嘱服药，定期复查。"]
    signs = signatures(texts)
    assert near_duplicates(signs, 0.8).tolist() == [-1] + [0] * 19999 + [-1]
    assert clusters(signs, 0.8).tolist() == [0] * 20000 + [20000]


def test_nothing_and_next_to_nothing() -> None:
    assert signatures([]).shape == (0, minhash.NUM_PERM)
    assert near_duplicates(signatures([]), 0.8).tolist() == []
    assert clusters(signatures([]), 0.8).tolist() == []
    # Texts of one or two tokens or of symbols alone are compared whole.
    signs = signatures(["发热", "发热。", "发烧", "？？", "！！", "??", "", " "])
    assert near_duplicates(signs, 0.8).tolist() == [-1, 0, -1, -1, -1, 3, -1, 6]


def test_batches_and_long_texts_do_not_change_a_signature() -> None:
    long = "".join(random.Random(4).choice(PARTS) for _ in range(100_000))
    texts = [*varied(50, seed=5), long, *varied(50, seed=6)]
    together = signatures(texts)
    assert all(np.array_equal(together[i], signature(texts[i])) for i in range(0, len(texts), 10))
    assert similarity(together[50], signature(long + "咳嗽")) > 0.9


def test_a_record_is_compared_by_its_first_text_and_by_all() -> None:
    short = [("发热", "多喝水。"), ("？？", "是的，没错。"), ("", "多喝水。"), ("头痛怎么办", ""), ("发热",), ("",)]
    long = "".join(random.Random(7).choice(PARTS) for _ in range(40_000))
    records = [
        *short,
        *zip(varied(200, seed=8), varied(200, seed=9), strict=True),
        (long, "发热"),
        ("发热", long, long),
    ]
    found = record_signatures(records)
    assert np.array_equal(found[:, 0], signatures([first for first, *_ in records]))
    # Symbols alone are tokens only where a text holds nothing else.
    whole = ["\n".join(texts) for texts in records]
    assert np.array_equal(np.delete(found[:, 1], 1, axis=0), np.delete(signatures(whole), 1, axis=0))
    assert record_signatures([]).shape == (0, 2, minhash.NUM_PERM)


def test_signatures_are_the_same_in_every_process_and_release() -> None:
    code = "from ms_medqa.data.minhash import signature; print(signature('什么是高血压? blood pressure').tolist()[:3])"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        )
        for s in ("1", "2")
    ]
    assert runs[0].stdout.strip() == runs[1].stdout.strip() == "[51452665, 413827829, 490754088]"


def test_signatures_on_disk_are_read_piece_by_piece(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count = 40000
    signs = np.lib.format.open_memmap(tmp_path / "signatures.npy", mode="w+", dtype=np.uint32, shape=(count, 64))
    signs[:] = rng.integers(0, 2**32, (count, 64), dtype=np.uint32)
    signs[count // 2 :] = signs[: count // 2]
    signs[count // 2 :, ::11] += 1  # 58 of 64 are equal
    tracemalloc.start()
    found = near_duplicates(signs, 0.8)
    labels = clusters(signs, 0.8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[count // 2 :].tolist() == labels[count // 2 :].tolist() == list(range(count // 2))
    # 300 MB at a million, where the blocks weigh nothing.
    assert peak < 150 * count + 30e6
