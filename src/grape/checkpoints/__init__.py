"""Verbs for a single checkpoint: ``predict``, ``probe`` and ``export``.

None opens a simulator; ``probe`` alone reads recorded episodes. Settings stand apart, so that ``--help`` needs no
torch; the work on weights is done in ``grape.policies``.
"""

from grape.checkpoints.export import run_export_adapter, run_export_merged
from grape.checkpoints.predict import run_predict
from grape.checkpoints.probing.probe import run_probe
from grape.checkpoints.settings import ExportAdapterSettings, ExportMergedSettings, PredictSettings, ProbeSettings

__all__ = [
    "ExportAdapterSettings",
    "ExportMergedSettings",
    "PredictSettings",
    "ProbeSettings",
    "run_export_adapter",
    "run_export_merged",
    "run_predict",
    "run_probe",
]
