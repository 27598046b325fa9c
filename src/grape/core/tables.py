"""Records as tables: HTML in notebooks, and data frames where pandas is installed."""

import html
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Any

from grape.core.errors import SettingsError, printable

__all__ = ["Table"]

_MOST_ROWS = 10
_SHORT = 40  # characters that stand on one line, e.g. an episode's id
_SENTENCE = "text-align: left; min-width: 30em"


class Table(ABC):
    """What can be shown as one row a record: stores, scores and preference pairs."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of records."""

    @abstractmethod
    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """One mapping a record, one after another, all with the same names, values of plain types."""

    def rows(self) -> list[dict[str, Any]]:
        """One mapping a record."""
        return list(self.iter_rows())

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``.

        Raises:
            SettingsError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ModuleNotFoundError as error:
            raise SettingsError("A data frame needs pandas, which is not installed.", "pip install pandas") from error
        return pandas.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        """The first rows as HTML, which notebooks show."""
        rows = list(islice(self.iter_rows(), _MOST_ROWS))
        head = "".join(f"<th>{_text(name)}</th>" for name in (rows[0] if rows else ()))
        body = "".join(f"<tr>{''.join(map(_cell, row.values()))}</tr>" for row in rows)
        more = f"<p>and {len(self) - _MOST_ROWS:,} more</p>" if len(self) > _MOST_ROWS else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
        return f'<p>{_text(repr(self))}</p><div style="overflow-x: auto">{table}</div>{more}'


def _cell(value: Any) -> str:
    text = _text(f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    style = "text-align: right" if number else "white-space: nowrap" if len(text) <= _SHORT else _SENTENCE
    return f'<td style="{style}">{text}</td>'


def _text(value: Any) -> str:
    return html.escape(printable(str(value)))
