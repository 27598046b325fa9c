"""Separate a model's answer from its thinking, which models and servers mark in many ways.

A draft in a thinking part is not the answer. Where the marks do not say which part is the answer, there is none.
"""

import re

__all__ = ["answer_part"]

_NAMES = r"(?P<name>(?:[a-z_]+:)?(?:[a-z_]*(?:think|thought|reason)[a-z_]*|analysis|scratchpad|reflection|details))"
_MARK = re.compile(
    rf"<\|?(?P<slash>/?){_NAMES}(?:\s[^<>]{{0,200}})?\|?>"
    r"|\[(?P<bracket>/?)think(?:ing)?\]"
    r"|\u25c1(?P<triangle>/?)think(?:ing)?\u25b7"
    r"|(?P<opened><unused94>|<\|channel>)|(?P<closed><unused95>|<channel\|>)",
    re.IGNORECASE,
)
"""Opening and closing marks: ``<think>``, ``<seed:think>``, ``<|begin_of_thought|>``, ``<|END_THINKING|>``,
``<details type="reasoning">``, ``[THINK]``, and those of Kimi-VL and Gemma."""

_CHANNEL = re.compile(r"<\|channel\|>\s*([a-z]+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>", re.IGNORECASE)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>", re.IGNORECASE)


def answer_part(text: str) -> str:
    """The part of a model's text that is its answer.

    Args:
        text: What the model wrote, with its marks: a pair of tags, a closing tag alone (the opening one stood in the
            prompt), or channels.

    Returns:
        What follows the last thinking part; empty where thinking is not closed or nothing follows it.
    """
    if "<|channel|>" in text.lower():
        return _final_channel(text)
    marks = list(_MARK.finditer(text))
    closing = [_closes(mark) for mark in marks]
    if not marks:
        return text
    if not closing[-1]:
        return ""  # it went on thinking, so that even what stands before is no last word
    return text[marks[-1].end() :]


def _closes(mark: re.Match[str]) -> bool:
    named = (mark["name"] or "").lower()
    return bool(mark["slash"] or mark["bracket"] or mark["triangle"] or mark["closed"]) or named.startswith("end_")


def _final_channel(text: str) -> str:
    """The text of the last channel where that is the final one."""
    channels = list(_CHANNEL.finditer(text))
    if not channels or channels[-1][1].lower() != "final":
        return ""
    body = text[channels[-1].end() :]
    end = _CHANNEL_END.search(body)
    return body if end is None else body[: end.start()]
