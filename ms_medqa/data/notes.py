"""What may be left out of a record that is otherwise kept; the report counts each."""

from __future__ import annotations

NOTES: dict[str, str] = {
    "trailing_user_turn": "a dialogue's last user turn without an answer was left out",
    "leading_assistant_turn": "assistant turns before a dialogue's first user turn were left out",
    "empty_turn": "turns without text were left out of a dialogue",
    "joined_turns": "consecutive turns of one speaker were joined by a line break",
    "first_phrasing": "of several phrasings of a question the first was taken",
    "first_pair": "of several questions, each with its own answer, the first was taken",
    "picture_left_out": "a record comes with a picture, which was left out",
    "rejected_left_out": "of two answers the chosen one was taken, the rejected one was left out",
}
