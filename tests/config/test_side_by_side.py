"""Two texts on a terminal: columns that stand straight also where characters are wide."""

from __future__ import annotations

from ms_medqa.config.side_by_side import cells_of, side_by_side

CHINESE = "高血压患者应低盐饮食，多吃蔬菜水果，规律运动，按医嘱服药，并且定期测量血压。" * 2
ENGLISH = "Take paracetamol every six hours, no more than four times a day, and drink plenty of water."


def test_columns_stand_straight_and_hold_the_whole_texts() -> None:
    lines = side_by_side({"base": CHINESE, "tuned": ENGLISH}, 101).splitlines()
    places = {cells_of(line.partition("│")[0]) for line in lines}
    assert places == {50}
    assert max(map(cells_of, lines)) <= 101
    cells = [[cell.strip() for cell in line.split("│")] for line in lines]
    assert cells[0] == ["base", "tuned"]
    assert "".join(left for left, _ in cells[2:]) == CHINESE
    assert " ".join(right for _, right in cells[2:]).split() == ENGLISH.split()


def test_a_narrow_terminal_has_them_one_below_the_other() -> None:
    lines = side_by_side({"base": CHINESE, "tuned": ENGLISH}, 40).splitlines()
    assert (lines[0], lines[5]) == ("base:", "tuned:")
    assert max(map(cells_of, lines)) == 40
    assert "".join(lines[1:5]) == CHINESE


def test_words_stay_whole_unless_they_are_longer_than_a_line() -> None:
    shown = side_by_side({"a": "one " + "x" * 25, "b": ""}, 10)
    assert shown.splitlines() == ["a:", "one", "x" * 10, "x" * 10, "x" * 5, "b:"]


def test_wide_characters_marks_and_joined_ones_are_counted_as_a_terminal_does() -> None:
    assert cells_of("药，aé") == 6
    assert cells_of("e\u0301") == 1
    assert cells_of("a\u200bb") == 2


def test_lines_of_the_text_stay_lines_and_control_characters_are_not_shown() -> None:
    assert side_by_side({"a": "一\n\n二\x1b[2J\t三"}, 30).splitlines() == ["a:", "一", "", "二[2J 三"]
