"""From the two RLDS folders of the first public implementation to a folder of pairs that ``grape train`` reads."""

from pathlib import Path

from grape.core.errors import DataError, SettingsError

__all__ = ["provide_pairs"]


def provide_pairs(chosen: Path, rejected: Path, pairs: Path) -> None:
    """Make sure that ``pairs`` holds the preference pairs of two RLDS data sets.

    This is the only place that knows how RLDS becomes pairs. It cannot be done by this release; a folder of pairs that
    stands there already is used as it is.

    Args:
        chosen: RLDS data set of the chosen trajectories, ``<folder>/<name>``.
        rejected: That of the rejected ones, joined one to one.
        pairs: Folder as made by ``grape pair``.

    Raises:
        DataError: A data set is not there.
        SettingsError: The pairs would have to be made from RLDS.
    """
    if (pairs / "done.json").exists():
        return
    for folder in (chosen, rejected):
        if not folder.is_dir():
            raise DataError(f"RLDS data set {folder} does not exist.", "Check the folder and --dataset_name.")
    raise SettingsError(
        f"Pairs in RLDS folders ({chosen} and {rejected}) cannot be read by this release yet.",
        f"Pairs made by 'grape pair' can be trained on: run the command above with their folder in place of {pairs}.",
    )
