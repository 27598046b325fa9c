"""Checks of the machine: what is installed, what is missing, and which command fixes it.

Each check gives findings (:class:`~grape.doctor.findings.Finding`). Whatever could crash or hang, such as loading a
graphics library, rendering a frame or asking torch for a GPU, runs in a separate process with a time limit, so
that a broken driver becomes a finding. Nothing is written.
"""

from grape.doctor.checkup import DoctorSettings, run_doctor
from grape.doctor.findings import Finding

__all__ = ["DoctorSettings", "Finding", "run_doctor"]
