"""Settings of ``grape push``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grape.core.settings import setting

__all__ = ["PushSettings", "What"]

What = Literal["auto", "policy", "adapter", "store", "pairs", "report"]

_CARD = "The card"


@dataclass(frozen=True)
class PushSettings:
    """Push a policy, adapter, episode store, pairs or a report to the Hugging Face hub, with a card.

    The folder that is pushed is written first: the files that belong to the thing and a README.md with license, base
    model, data sets and what was measured, with intervals. It can be looked at (--offline) and pushed later by the same
    command. The token comes from HF_TOKEN or 'hf auth login', and is written nowhere.

    Attributes:
        run: What to push: the output folder of grape sft, train, collect, pair or loop, a checkpoint or a store, or the
            folder with a report.
        to: Repository, NAMESPACE/NAME. Policies and adapters become models, all else data sets.
        what: What of the folder is pushed: policy, adapter, store, pairs or report. auto takes what the folder is; of a
            loop that is its policy.
        out: Folder to write, which is what is pushed; without it runs/push/NAMESPACE/NAME. An older one of the same
            --to is replaced.
        private: Make the repository private where it does not exist yet.
        offline: Write the folder and push nothing.
        license: License by the hub's identifier, e.g. apache-2.0, cc-by-4.0 or other. Without one the card names none.
        datasets: Names on the hub of data that it was made from, beside those that the run's settings name.
        base: For an adapter: its base policy's name on the hub, where the adapter points to a folder.
        evaluations: Folder in which evaluations of the policy are looked for; without it the run and the folder that it
            lies in.
        dry_run: Say which files would be pushed, and write nothing.
    """

    run: Path = setting(common=True)
    to: str = setting(common=True)
    what: What = setting("auto", common=True)
    out: Path | None = setting(None, identity=False, common=True)
    private: bool = setting(False, common=True)
    offline: bool = setting(False, common=True)
    license: str = setting("", group=_CARD, common=True)
    datasets: tuple[str, ...] = setting((), group=_CARD, common=True)
    base: str = setting("", group=_CARD, common=True)
    evaluations: Path | None = setting(None, group=_CARD)
    dry_run: bool = setting(False, common=True)
