"""Spending ledgers: what was spent must neither disappear nor end in a traceback."""

import json
from pathlib import Path

import pytest

from tests.hostile.baseline import MAKERS
from tests.hostile.cases import as_rows, cases_of, changed_rows, check, contents
from tests.hostile.documents import BAD_JSON, ESCAPES
from tests.hostile.hostile_files import DAMAGED, SPECIAL, remove

ASK = (
    "OPENAI_BASE_URL=http://127.0.0.1:9/v1 costs generate --suite toy --task push-block --no-image --model m "
    "--attempts 1 --max-requests 5 --max-money 3 --price-reading 2 --price-writing 8 --out OUT"
)
"""Nobody listens at that port: a question is entered in the ledger, sent, and refused."""
ROW = {"number": 0, "prompt_tokens": 10, "completion_tokens": 5, "estimated": False}


def _link_to_victim(path: Path) -> None:
    remove(path)
    victim = path.parents[2] / "work" / "victim"
    victim.write_text("mine\n", encoding="utf-8")
    path.symlink_to(victim)


def _rows(**values: object) -> bytes:
    return (json.dumps({**ROW, **values}) + "\n").encode()


LEDGERS = {
    "negative tokens": _rows(prompt_tokens=-(10**9)),
    "negative number": _rows(number=-1),
    "tokens of 2^62": _rows(prompt_tokens=2**62, completion_tokens=2**62),
    "tokens of 10^400": _rows(prompt_tokens=10**400),
    "tokens of 1e308": _rows(completion_tokens=1e308),
    "tokens of infinity": _rows(completion_tokens=float("inf")),
    "tokens of NaN": _rows(completion_tokens=float("nan")),
    "tokens of text": _rows(completion_tokens="7"),
    "tokens of text with escapes": _rows(completion_tokens=ESCAPES),
    "tokens that are true": _rows(completion_tokens=True),
    "number of 2^62": _rows(number=2**62),
    "estimated of text": _rows(estimated="no"),
    "estimated of a list": _rows(estimated=[]),
    "a list": b"[0, 10, 5, false]\n",
    "a list of entries": b"[" + _rows().strip() + b"]\n",
    "entries in one line": _rows().strip() * 3 + b"\n",
    "a lone surrogate": _rows(number="\ud800"),
    "a million empty lines": b"\n" * 1_000_000,
    "300,000 entries": b"".join(_rows(number=number) for number in range(300_000)),
    "a line of 50 MB": b'{"number": 0, "prompt_tokens": ' + b"1" * 50_000_000,
    "truncated": _rows() + _rows(number=1)[:30],
    "truncated within": _rows() + _rows(number=1)[:30] + b"\n" + _rows(number=2),
    "carriage returns": _rows().replace(b"\n", b"\r"),
    "separators of lines in Unicode": _rows().replace(b"\n", "\u2028".encode()) * 2,
}
"""Of what a ledger holds."""

CASES = [
    *cases_of(
        "spending.jsonl", (), [ASK], {**SPECIAL, **DAMAGED, "link to another file": _link_to_victim}, out="asked"
    ),
    *cases_of("spending.jsonl", (), [ASK], {**as_rows(BAD_JSON), **changed_rows(40, 1)}, out="asked"),
    *cases_of("spending.jsonl", (), [ASK], contents(LEDGERS), out="asked", sampled=False),
]


@pytest.fixture(scope="module", autouse=True)
def _with_spending(driver):
    def make(path: Path) -> None:
        ending = driver.run(ASK.replace("OUT", path.name).split(), path.parents[1])
        assert ending.code == 1, ending
        (path / "spending.jsonl").write_bytes(_rows() + _rows(number=1))

    MAKERS["asked"] = make


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_ledger(case, baseline, driver, place):
    check(case, baseline, driver, place)
