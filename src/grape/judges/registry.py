"""Judges by name.

Judges of other distributions register a class under the entry-point group ``grape.judges``; a program can register its
own for as long as it runs. What is no name is a command line: a program that is started without a shell.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from grape.core.errors import SettingsError, require_known
from grape.core.events import SILENT, Reporter
from grape.core.runs import identity_of
from grape.judges.base import Judge
from grape.judges.builtin import Difference, RandomJudge, RankingJudge, ScorerJudge, SuccessJudge
from grape.judges.external import ExternalJudge
from grape.judges.vision_language import VisionLanguageJudge, read_vision_language_settings
from grape.judges.votes import VotesJudge, votes_identity
from grape.scorers import open_scorer, parse_scorers
from grape.scorers.program import program_identity
from grape.scorers.registry import R_GCPG, Choice, made_by_plugin, split_choice
from grape.scorers.shipped import SHIPPED, shipped_identity

__all__ = [
    "R_GCPG",
    "JudgeChoice",
    "JudgeContext",
    "judge_names",
    "open_judge",
    "parse_judge",
    "register_judge",
]

_GROUP = "grape.judges"
_BUILTIN = ("score", "success", "random", "scorer", "votes", "vlm")
_NEEDS = {
    "scorer": "a scorer, e.g. scorer:costs",
    "votes": "a folder, e.g. votes:runs/votes",
    "vlm": "a file that says which model, e.g. vlm:judge.yaml",
}
_of_this_process: dict[str, Callable[..., Judge]] = {}


@dataclass(frozen=True)
class JudgeChoice(Choice):
    """A value of ``--judge``."""

    def identity(self) -> dict[str, Any]:
        """JSON value on which its judgments depend, as far as it is known without starting anything."""
        if self.name in SHIPPED["judge"]:
            return shipped_identity("judge", self.name, self.argument)
        if self.command:
            return program_identity(self.command)
        if self.name == "scorer":
            return {"scorer": parse_scorers([self.argument])[0].identity()}
        if self.name == "votes":
            return {"votes": votes_identity(Path(self.argument))}
        if self.name == "vlm":
            return {"vlm": identity_of(read_vision_language_settings(Path(self.argument)))}
        return {"name": self.name, "argument": self.argument}


@dataclass(frozen=True)
class JudgeContext:
    """What judges may need that only the caller has.

    Attributes:
        rankings: Recorded values that judge ``score:NAME`` can rank by.
        checksums: Checksum of each episode, which votes are compared with.
        seed: Of judge ``random``.
        timeout: Seconds within which an external program must start, and answer.
        reporter: Hears of warnings and waits.
        folder: Where a model's answers and what it cost are kept; None for nowhere.
    """

    rankings: Mapping[str, Difference] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    timeout: float = 600.0
    reporter: Reporter = SILENT
    folder: Path | None = None


def register_judge(name: str, kind: Callable[..., Judge]) -> None:
    """Make a judge known in this process, e.g. one that a notebook defines; a package has an entry point.

    Args:
        name: What it is called. One that was registered before now stands for ``kind``.
        kind: Its class, made as :class:`Judge` says.

    Raises:
        SettingsError: The name is that of a built-in judge, or cannot stand in ``--judge NAME``.
    """
    taken = (*_BUILTIN, *SHIPPED["judge"])
    if name in taken or not name.replace("-", "_").isidentifier():
        raise SettingsError(
            f"{name!r} cannot name a judge of one's own.",
            f"Take letters, digits, - and _, and none of {', '.join(taken)}.",
        )
    _of_this_process[name] = kind


def judge_names() -> tuple[str, ...]:
    """Names of all judges, of GRAPE, from entry points, or registered in this process, sorted."""
    points = (point.name for point in metadata.entry_points(group=_GROUP))
    return tuple(sorted({*_BUILTIN, *SHIPPED["judge"], *_of_this_process, *points}))


def parse_judge(text: str) -> JudgeChoice:
    """What a value of ``--judge`` stands for: ``[LABEL=]NAME``, ``[LABEL=]NAME:ARGUMENT`` or ``[LABEL=]COMMAND``.

    Raises:
        SettingsError: A name is unknown, its argument is missing or not wanted, or a program cannot be found.
    """
    label, name, argument, command = split_choice(text, "judge", judge_names())
    if name in _NEEDS and not argument:
        raise SettingsError(f"--judge {name} needs {_NEEDS[name]}.")
    if name in ("success", "random") and argument:
        raise SettingsError(f"--judge {name} takes no argument.", "Leave out what follows the colon.")
    if name == "scorer":
        parse_scorers([argument])
    if name == "vlm":
        read_vision_language_settings(Path(argument))
    return JudgeChoice(label, name, argument, command)


def open_judge(choice: JudgeChoice, context: JudgeContext) -> Judge:
    """Make a judge; a program is started.

    Args:
        choice: Which one.
        context: What it may need.

    Raises:
        SettingsError: It ranks by values that were not recorded, or the plugin that registered it cannot be loaded.
        DataError: Votes are damaged.
        ProgramError: The program does not start.
    """
    if choice.command:
        return ExternalJudge(choice.command, context.timeout, context.reporter.warn)
    match choice.name:
        case "score":
            label = choice.argument or R_GCPG
            if not context.rankings:
                raise SettingsError(
                    "--judge score ranks by recorded scores, and there are none here.",
                    "Give a scorer, e.g. scorer:costs.",
                )
            require_known("scorer", label, context.rankings)
            return RankingJudge(context.rankings[label], label)
        case "success":
            return SuccessJudge()
        case "random":
            return RandomJudge(context.seed)
        case "scorer":
            (scorer,) = parse_scorers([choice.argument])
            return ScorerJudge(open_scorer(scorer, context.timeout, context.reporter.warn), scorer.label)
        case "votes":
            return VotesJudge(Path(choice.argument), context.checksums, context.reporter.warn)
        case "vlm":
            settings = read_vision_language_settings(Path(choice.argument))
            return VisionLanguageJudge(settings, context.folder, context.reporter)
        case name:
            return cast(Judge, made_by_plugin(name, choice.argument, "judge", _GROUP, _of_this_process, Judge))
