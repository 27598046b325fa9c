"""``grape judges``: list scorers and judges, and try a judge before it is trusted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import BudgetError, CompatibilityError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash
from grape.core.settings import Range, check_ranges, setting
from grape.costs import card_text
from grape.judges.known_orders import JoinedStores, KnownOrder, known_couples
from grape.judges.registry import JudgeContext, judge_names, open_judge, parse_judge
from grape.judges.trial import JudgeCriteria, try_judge
from grape.scorers import scorer_names
from grape.scorers.shipped import SHIPPED

__all__ = ["JudgesListSettings", "JudgesValidateSettings", "run_judges_list", "run_judges_validate"]


@dataclass(frozen=True)
class JudgesListSettings:
    """Name the scorers and judges: those of GRAPE and of installed packages."""


@dataclass(frozen=True)
class JudgesValidateSettings(JudgeCriteria):
    """Try a judge on couples of recorded episodes whose order is known, before it chooses pairs.

    Successes are better than failures of their initial state, and experts of style clean better than perturbed ones,
    e.g. of 'grape collect' with the operators clean, noisy and sloppy. Leaves with exit code 0 if it is accepted,
    else 1. A scorer is tried as scorer:NAME.

    Attributes:
        judge: Judge as for grape pair --judge, e.g. 'scorer:costs' or the command line of a program.
        store: Episode stores, or folders that grape collect wrote.
        seed: Seed of the couples that are drawn.
        program_timeout: Seconds (above 0) within which an external program must start, and answer each request.
    """

    judge: str = setting("", common=True)
    store: tuple[Path, ...] = setting((), common=True)
    seed: int = 0
    program_timeout: float = setting(600.0, range=Range(0, open_low=True))


def run_judges_list(settings: JudgesListSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Names of scorers and judges.

    Returns:
        ``text`` for people, ``scorers`` and ``judges``, and ``needs``: what those of learned rewards need, by kind and
        name.
    """
    scorers, judges = list(scorer_names()), list(judge_names())
    lines = [f"scorers  {', '.join(scorers)}", f"judges   {', '.join(judges)}", "or any program: see docs/judges.md"]
    lines += ["", "learned rewards, e.g. robometer:/opt/lerobot/bin/python, an interpreter that has the package:"]
    for kind, programs in SHIPPED.items():
        lines += [f"{kind:7}  {name:10} {item.summary}; needs {item.needs}" for name, item in programs.items()]
    needs = {kind: {name: item.needs for name, item in programs.items()} for kind, programs in SHIPPED.items()}
    return {"text": "\n".join(lines), "scorers": scorers, "judges": judges, "needs": needs}


def run_judges_validate(settings: JudgesValidateSettings, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Try a judge.

    Returns:
        ``text`` for people and the card, see :meth:`grape.costs.ReportCard.to_dict`.

    Raises:
        SettingsError: The judge or the stores are missing or unknown, or a limit is out of range.
        CompatibilityError: The stores hold no couple of known order.
        ProgramError: An external judge does not start, or keeps failing.
        BudgetError: The judge is a model whose budget is spent; its answers are lost.
    """
    check_ranges(settings)
    if not settings.judge:
        raise SettingsError(
            "There is no judge to try.", "Name one, e.g. grape judges validate scorer:costs --store ..."
        )
    choice = parse_judge(settings.judge)
    episodes = JoinedStores(settings.store)
    metas = [meta for meta in episodes.metas() if meta.success is not None]
    kinds: tuple[KnownOrder, ...] = ("outcomes", "experts")
    total = sum(len(known_couples(metas, kind, settings.couples, settings.seed)) for kind in kinds)
    if not total:
        raise CompatibilityError(
            "No two of the episodes have a known order: no initial state has a success and a failure, or a clean "
            "expert and a perturbed one.",
            "Collect experts of several styles from the same initial states, e.g. clean and sloppy in two runs.",
        )
    context = JudgeContext(
        checksums=episodes.checksums(), seed=settings.seed, timeout=settings.program_timeout, reporter=reporter
    )
    judge = open_judge(choice, context)
    try:
        with reporter.progress("trying", total) as progress:
            card = try_judge(
                judge,
                choice.label,
                content_hash(choice.identity()),
                episodes,
                settings,
                seed=settings.seed,
                advance=progress.advance,
            )
        provenance = dict(judge.provenance())
    except BudgetError as error:
        hint = "Give the judge's file a larger budget, or lower --couples and --repeats: a trial keeps no answers."
        raise BudgetError(error.message, hint) from error
    finally:
        judge.close()
    return {
        "text": card_text(card),
        "stores": list(map(str, settings.store)),
        "provenance": provenance,
        **card.to_dict(),
    }
