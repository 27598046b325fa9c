"""From the two RLDS folders of the first public implementation to a folder of pairs that ``grape train`` reads."""

import datetime
from collections.abc import Mapping
from typing import Any

from grape.core.events import SILENT, Reporter
from grape.exchange import ImportGrapeRldsSettings, run_import_grape_rlds
from grape.training.distributed import join_process_group

__all__ = ["provide_pairs"]

_PATIENCE = datetime.timedelta(days=1)


def provide_pairs(settings: ImportGrapeRldsSettings, device: str, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Make sure that ``settings.out`` holds the preference pairs of two RLDS data sets, with a policy's tokens.

    An import that is complete is not repeated; one that was killed is finished. Of several processes the first one
    works, the others wait.

    Args:
        settings: What to import; names the policy.
        device: Where the training will compute, as for ``grape train``.
        reporter: Progress and warnings.

    Returns:
        The import's summary.

    Raises:
        SettingsError: There is no such policy.
        DataError: A data set is missing or damaged, or the sides cannot be joined.
        CompatibilityError: The folder holds pairs of other data.
    """
    processes = join_process_group(device, _PATIENCE)
    return processes.run_on_main(lambda: run_import_grape_rlds(settings, reporter if processes.is_main else SILENT))
