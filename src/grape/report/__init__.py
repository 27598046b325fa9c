"""The report: one self-contained HTML page about a run, which a person reads.

``folders`` finds what verbs left in a run, ``contents`` reads it; ``headline``, ``charts``, ``curves``, ``gallery``,
``timelines`` and ``videos`` turn it into what the page shows, without markup; ``page`` fills the templates, which
escape every text. ``report`` is the verb.
"""

from grape.report.report import ReportSettings, run_report

__all__ = ["ReportSettings", "run_report"]
