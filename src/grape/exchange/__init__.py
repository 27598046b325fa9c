"""Data in and out: recorded episodes and pairs in the formats of others."""

from grape.exchange.rlds_export import RldsExportSettings, run_export_rlds

__all__ = ["RldsExportSettings", "run_export_rlds"]
