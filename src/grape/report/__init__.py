"""The report: one self-contained HTML page about a run.

``folders`` finds what verbs left in a run, ``contents`` reads it; ``headline``, ``charts``, ``curves``, ``gallery``,
``timelines`` and ``videos`` turn it into what the page shows, without markup; ``page`` fills the templates, which
escape every text. ``report`` is the verb, ``costs_page`` the page of ``grape costs show``, ``agreement_page``
the verb ``agree`` and its page.
"""

from grape.report.agreement_page import AgreeSettings, run_agree
from grape.report.costs_page import CostsPageSettings, run_costs_page
from grape.report.report import ReportSettings, run_report

__all__ = ["AgreeSettings", "CostsPageSettings", "ReportSettings", "run_agree", "run_costs_page", "run_report"]
