"""The reference page says what the code does."""

import re
from pathlib import Path

import pytest

from grape.costs import find_problems, parse_specification
from grape.costs.vocabulary import vocabulary_table

PAGE = Path(__file__).parents[2] / "docs" / "costs.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_vocabulary_is_the_published_one(page: str) -> None:
    assert vocabulary_table() in page


def test_the_example_is_a_specification_without_findings(page: str) -> None:
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    assert find_problems(parse_specification(example[1], "example")) == ()


def test_every_code_of_the_static_checks_is_explained(page: str) -> None:
    folder = PAGE.parents[1] / "src" / "grape" / "costs"
    source = "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))
    codes = {*re.findall(r'Finding\(\s*f?"([a-z{}-]+)"', source), *re.findall(r'f"\[([a-z-]+)\]', source)}
    assert len(codes) >= 14
    for code in codes:
        for name in (code.replace("{kind}", "keypoint"), code.replace("{kind}", "signal")):
            assert f"`{name}`" in page, name
