"""``grape import grape-rlds``: the two RLDS folders of the first implementation become a store and preference pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grape.core.errors import DataError
from grape.core.events import SILENT, Reporter
from grape.core.files import file_hash, write_jsonl
from grape.core.preferences import PreferencePair
from grape.core.runs import open_run
from grape.core.settings import setting
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.exchange.tokens import keep_statistics, kept_statistics, open_reader
from grape.preferences.records import PAIRS_FILE, pair_to_row
from grape.store import EpisodeStore
from grape.store.imported import ACTION_SPACE, ActionReader, foreign_trajectory, task_name
from grape.store.rlds import RldsDataset, open_rlds
from grape.store.rlds.columns import stated_rotation
from grape.store.rlds.joining import JoinedPair, join_pairs
from grape.store.rlds.pairs import SIDES
from grape.store.rlds.standardize import RULES, StandardEpisode
from grape.store.rlds.statistics import dataset_statistics

__all__ = ["ImportGrapeRldsSettings", "run_import_grape_rlds"]

SUITE = "rlds"


_STEPS, _TOKENS = "Steps", "Action tokens"


@dataclass(frozen=True)
class ImportGrapeRldsSettings:
    """Read chosen and rejected trajectories from two RLDS data sets and make a store and pairs of them.

    Pairs are joined by episode_metadata/file_path where both sides carry the same names. Otherwise they are joined by
    order, with a warning, and only if numbers and instructions agree.

    Attributes:
        chosen: RLDS data set of the preferred trajectories, e.g. DIR/chosen/rlds_np_rollout.
        rejected: That of the others.
        out: Folder to write: store (the episodes) and pairs (as from grape pair).
        split: Which split of both; all takes every split.
        rule: plain keeps every decision. rlds_np_rollout drops the first and the last one and rounds the gripper, as
            the first implementation did.
        pictures_after_action: The images were taken after their action, as in data collected with
            SimplerEnv by the first implementation. Each action then gets the image of the decision before, and the
            first action, which has none, is dropped.
        policy: Checkpoint (a folder or a name on the hub) that encodes the actions as tokens, so that it can be
            trained on the pairs with grape train --reference recomputed. Without one there are no tokens.
        unnorm_key: Statistics by which the policy encodes actions as tokens. Empty: those it holds under the data
            set's name, else the data's own (both sides together, all splits), which are written to
            dataset_statistics.json for grape train --norm-stats. Name those that the policy acted by, if it made
            these trajectories: then its sampled tokens are recovered, also where an export of GRAPE has another
            rotation convention than the policy.
        center_crop: As for grape train.
    """

    chosen: Path = setting(identity=False, common=True)
    rejected: Path = setting(identity=False, common=True)
    out: Path = setting(identity=False, common=True)
    split: str = setting("train", group=_STEPS, common=True)
    rule: Literal["plain", "rlds_np_rollout"] = setting("plain", group=_STEPS, common=True)
    pictures_after_action: bool = setting(False, group=_STEPS, common=True)
    policy: Path | None = setting(None, group=_TOKENS, identity=False, common=True)
    unnorm_key: str = setting("", group=_TOKENS)
    center_crop: Literal["auto", "yes", "no"] = setting("auto", group=_TOKENS)


def run_import_grape_rlds(
    settings: ImportGrapeRldsSettings, reporter: Reporter = SILENT, reader: ActionReader | None = None
) -> Mapping[str, Any]:
    """Import pairs.

    RLDS holds no action tokens. With a policy, the tokens are those by which it would say the recorded actions, so that
    it can be trained on these pairs with a recomputed reference. Without one there are none, and the pairs serve for
    viewing, exporting and filtered behavior cloning (filtered BC).

    Args:
        settings: What to import.
        reporter: Progress and warnings.
        reader: A policy that is open already, in place of ``settings.policy``.

    Returns:
        Summary: ``pairs``, ``joined_by``, ``steps`` of both sides, ``tokens`` (whether there are any), ``unnorm_key``
        (by which statistics), ``store`` and ``pairs_folder`` as seen from ``out``.

    Raises:
        SettingsError: The policy or its statistics are unknown.
        DataError: A data set is missing or damaged, the sides cannot be joined, or they say rotations differently.
        CompatibilityError: ``out`` belongs to another run.
    """
    chosen, rejected = open_rlds(settings.chosen), open_rlds(settings.rejected)
    rule, rotation = RULES[settings.rule], _rotation(chosen, rejected)
    statistics: Mapping[str, Any] = {}
    if reader is None and settings.policy is not None:
        name = chosen.path.parent.name
        statistics = kept_statistics(settings.out, name, lambda: dataset_statistics([(chosen, rule), (rejected, rule)]))
        reader = open_reader(settings.policy, settings.unnorm_key, settings.center_crop, statistics, rotation)
    inputs = {
        "chosen": _identity(chosen),
        "rejected": _identity(rejected),
        "reader": reader.preprocessing_hash if reader else "",
    }
    run = open_run(settings.out, "import", settings, inputs)
    if run.done is not None:
        return run.done
    if statistics:
        keep_statistics(settings.out, statistics)
    joined = join_pairs(chosen, rejected, rule, split=settings.split, warn=reporter.warn)
    space = {**ACTION_SPACE, **({"rotation": rotation} if rotation else {})}
    store = EpisodeStore.create(settings.out / "store", SUITE, {"action_space": space, "rule": settings.rule})
    pairs, steps = [], dict.fromkeys(SIDES, 0)
    with reporter.progress("Importing pairs", len(joined)) as progress:
        for position, pair in enumerate(joined):
            written = {side: _trajectory(pair, side, position, settings, reader) for side in SIDES}
            for side, trajectory in written.items():
                store.write(trajectory)
                steps[side] += trajectory.steps
            pairs.append(_pair(pair, position, {side: item.meta for side, item in written.items()}))
            progress.advance()
    pair_run = open_run(settings.out / "pairs", "pair", {"imported": "grape-rlds", **inputs})
    write_jsonl(settings.out / "pairs" / PAIRS_FILE, map(pair_to_row, pairs))
    pair_run.finish({"pairs": len(pairs), "mode": "imported", "store": "../store"})
    summary = {
        "pairs": len(pairs),
        "joined_by": joined.joined_by,
        "steps": steps,
        "tokens": reader is not None,
        "unnorm_key": getattr(reader, "unnorm_key", ""),
        "store": "store",
        "pairs_folder": "pairs",
    }
    run.finish(summary)
    return summary


def _rotation(chosen: RldsDataset, rejected: RldsDataset) -> str:
    first, second = stated_rotation(chosen.features), stated_rotation(rejected.features)
    if first != second:
        raise DataError(
            f"The actions of {chosen.path} say rotations as {first or 'unknown'}, those of {rejected.path} as "
            f"{second or 'unknown'}.",
            "Take both sides from one export.",
        )
    return first


def _identity(dataset: RldsDataset) -> str:
    """Hash of the descriptions, which hold the number of episodes and bytes."""
    return "-".join(file_hash(dataset.path / name)[:16] for name in ("dataset_info.json", "features.json"))


def _trajectory(
    pair: JoinedPair, side: str, position: int, settings: ImportGrapeRldsSettings, reader: ActionReader | None
) -> Trajectory:
    episode: StandardEpisode = getattr(pair, side)
    chosen = side == SIDES[0]
    meta = EpisodeMeta(
        episode_id=f"pair-{position:05d}-{side}",
        suite=SUITE,
        task=task_name(episode.instruction),
        task_index=0,
        instruction=episode.instruction,
        initial_state=position,
        sample=int(not chosen),
        seed=0,
        success=None,  # the pair says which is better, not that either succeeded
        steps=0,
        actor="",
        extra={"imported_from": episode.where, "file_path": episode.file_path},
    )
    return foreign_trajectory(
        meta,
        episode.images.decode(),
        episode.actions,
        pictures_after_action=settings.pictures_after_action,
        reader=reader,
    )


def _pair(pair: JoinedPair, position: int, metas: Mapping[str, EpisodeMeta]) -> PreferencePair:
    return PreferencePair(
        pair_id=pair.pair_id,
        task=metas["chosen"].task,
        initial_state=position,
        chosen=metas["chosen"].episode_id,
        rejected=metas["rejected"].episode_id,
        margin=0.0,
        mode="imported",
        reason="Imported as a pair; no scores came with it.",
    )
