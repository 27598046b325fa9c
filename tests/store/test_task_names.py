"""Names of tasks made from instructions: nothing that a policy is told may get lost in them."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from grape.store.imported import task_name

LONG = "put the red bowl " + "that stands next to the white plate " * 3 + "on the left side of the table "


def test_plain_words_keep_their_name():
    assert task_name("Put the bowl on the plate") == "put-the-bowl-on-the-plate"


def test_a_hash_stays_wherever_something_was_lost():
    names = [
        "把1号碗放到盘子上",
        "把1号杯子推到左边",
        "put 绿杯 on 黄盘",
        "put 红碗 on 蓝盘",
        LONG + "into the drawer",
        LONG + "onto the stove",
        "put a, b",
        "put a b",
        "pick-up it",
        "pick up it",
        "!!",
        "??",
    ]
    assert len({task_name(name) for name in names}) == len(names)
    assert re.fullmatch(r"put-on-[0-9a-f]{8}", task_name("put 绿杯 on 黄盘"))


@example(["a-b", "a b"])
@given(st.lists(st.text(max_size=200), min_size=2, max_size=2, unique_by=lambda text: " ".join(text.lower().split())))
def test_different_instructions_have_different_safe_names(texts):
    one, other = map(task_name, texts)
    assert one != other
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,119}", one)
