"""Import and export: recorded episodes and pairs in the formats of other projects."""

from grape.exchange.lerobot_export import LeRobotExportSettings, run_export_lerobot
from grape.exchange.lerobot_import import ImportLeRobotSettings, run_import_lerobot
from grape.exchange.lint import LintSettings, run_lint
from grape.exchange.npy_import import ImportGrapeNpySettings, run_import_grape_npy
from grape.exchange.rerun_export import RerunExportSettings, run_export_rerun
from grape.exchange.rlds_export import RldsExportSettings, run_export_rlds
from grape.exchange.rlds_import import ImportGrapeRldsSettings, run_import_grape_rlds
from grape.exchange.video_import import ImportVideoSettings, run_import_video

__all__ = [
    "ImportGrapeNpySettings",
    "ImportGrapeRldsSettings",
    "ImportLeRobotSettings",
    "ImportVideoSettings",
    "LeRobotExportSettings",
    "LintSettings",
    "RerunExportSettings",
    "RldsExportSettings",
    "run_export_lerobot",
    "run_export_rerun",
    "run_export_rlds",
    "run_import_grape_npy",
    "run_import_grape_rlds",
    "run_import_lerobot",
    "run_import_video",
    "run_lint",
]
