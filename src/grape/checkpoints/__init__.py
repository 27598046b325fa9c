"""Verbs for a single checkpoint: ``predict`` and ``export``.

``predict`` and ``export`` open no simulator and no episode store. Settings stand apart, so that ``--help`` needs no
torch; the work on weights is done in ``grape.policies``.
"""

from grape.checkpoints.export import run_export_adapter, run_export_merged
from grape.checkpoints.predict import run_predict
from grape.checkpoints.settings import ExportAdapterSettings, ExportMergedSettings, PredictSettings

__all__ = [
    "ExportAdapterSettings",
    "ExportMergedSettings",
    "PredictSettings",
    "run_export_adapter",
    "run_export_merged",
    "run_predict",
]
