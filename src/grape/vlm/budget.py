"""Budget of requests, tokens and money, and what was spent.

Every question is entered in a ledger before it is sent, with the most it can cost, and again with the actual cost
of the answer. So a kill or a lost reply does not hide spending, and a resumed run continues the count.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import BudgetError, DataError, SettingsError
from grape.core.events import append_line
from grape.core.reading import parse_json, read_file
from grape.vlm.conversation import Request, Usage

__all__ = ["Budget", "Limits", "Prices"]

_START = b'{"number": '
_MOST = 10**15
"""Of a question's number and tokens: exact as floating-point numbers, and so are sums of thousands."""

_Row = tuple[int, Usage]


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens, in the account's currency.

    Attributes:
        reading: For tokens of questions.
        writing: For tokens of answers.
    """

    reading: float = 0.0
    writing: float = 0.0

    def of(self, usage: Usage) -> float:
        """Money for an answer."""
        return (usage.prompt_tokens * self.reading + usage.completion_tokens * self.writing) / 1e6


@dataclass(frozen=True)
class Limits:
    """Most that may be spent; 0 stands for no limit.

    Attributes:
        requests: Questions sent, failed attempts included.
        tokens: Tokens read and written.
        money: In the currency of the prices.
    """

    requests: int = 0
    tokens: int = 0
    money: float = 0.0


class Budget:
    """Counter of spending that refuses requests beyond its limits.

    Args:
        limits: Most that may be spent.
        prices: Of the model that is asked.
        ledger: File with one JSON object a line; None keeps the count in memory only.

    Raises:
        SettingsError: Money is limited and no price is known.
        DataError: The ledger is damaged.
    """

    def __init__(self, limits: Limits, prices: Prices, ledger: Path | None = None) -> None:
        if limits.money > 0.0 and prices.reading <= 0.0 and prices.writing <= 0.0:
            raise SettingsError(
                "A limit of money needs the prices of the model.",
                "Give --price-reading and --price-writing, the money for a million tokens.",
            )
        self.limits, self.prices, self.ledger = limits, prices, ledger
        self._entries: dict[int, Usage] = {}
        self._entries.update(_rows(ledger))

    @property
    def requests(self) -> int:
        """Questions sent."""
        return len(self._entries)

    @property
    def tokens(self) -> int:
        """Tokens of all questions and answers."""
        return sum(usage.tokens for usage in self._entries.values())

    @property
    def money(self) -> float:
        """Money for them."""
        return sum(map(self.prices.of, self._entries.values()))

    def reserve(self, request: Request) -> int:
        """Enter a question before it is sent.

        Returns:
            The entry's number, for :meth:`settle`.

        Raises:
            BudgetError: It could go beyond a limit.
        """
        most = Usage(request.estimated_prompt_tokens, request.max_tokens, estimated=True)
        for what, spent, more, limit in (
            ("requests", self.requests, 1, self.limits.requests),
            ("tokens", self.tokens, most.tokens, self.limits.tokens),
            ("money", self.money, self.prices.of(most), self.limits.money),
        ):
            if limit and spent + more > limit:
                raise BudgetError(
                    f"The budget does not allow another question: {spent:g} of {limit:g} {what} are spent, "
                    f"and it could take {more:g} more.",
                    "Run the same command with a larger budget: answers that were given are kept and not asked again.",
                )
        number = max(self._entries, default=-1) + 1
        self._enter(number, most)
        return number

    def settle(self, number: int, usage: Usage) -> None:
        """Replace an entry's estimate by what the question took."""
        self._enter(number, usage)

    def summary(self) -> dict[str, Any]:
        """What was spent, as JSON values."""
        spent: dict[str, Any] = {"requests": self.requests, "tokens": self.tokens}
        if self.prices != Prices():
            spent["money"] = round(self.money, 6)
        return spent | {"estimated": any(usage.estimated for usage in self._entries.values())}

    def _enter(self, number: int, usage: Usage) -> None:
        self._entries[number] = usage
        if self.ledger is None:
            return
        row = {
            "number": number,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "estimated": usage.estimated,
        }
        self.ledger.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.ledger, json.dumps(row))


def _rows(ledger: Path | None) -> list[_Row]:
    """Entries of a ledger; a line truncated by a kill was never sent and is left out.

    Raises:
        DataError: It is no regular file in its folder, too large, or holds something else than entries; whoever left
            that out could spend more than the limits allow.
    """
    if ledger is None or not (ledger.exists() or ledger.is_symlink()):
        return []
    lines = enumerate(read_file(ledger, within=ledger.parent).split(b"\n"), 1)
    return [_row(line, f"{ledger}, line {number}") for number, line in lines if line and not _is_truncated(line)]


def _is_truncated(line: bytes) -> bool:
    """Whether it is the first part of an entry."""
    return _START.startswith(line[: len(_START)]) and not line.endswith(b"}")


def _row(line: bytes, where: str) -> _Row:
    hint = "Repair or remove that line; without it, what it says was spent is not counted."
    row = parse_json(line, where, hint=hint)
    entry = row if isinstance(row, dict) else {}
    number, prompt, completion = (_count(entry.get(name)) for name in ("number", "prompt_tokens", "completion_tokens"))
    estimated = entry.get("estimated")
    if number is None or prompt is None or completion is None or not isinstance(estimated, bool):
        raise DataError(f"{where} is no entry of a spending ledger.", hint)
    return number, Usage(prompt, completion, estimated)


def _count(value: object) -> int | None:
    """The value where it can be a count."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST else None
