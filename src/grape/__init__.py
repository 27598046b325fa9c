"""GRAPE: align vision-language-action policies with preferences between whole trajectories.

The way of the data, one verb a step: collect -> score -> pair -> train -> evaluate -> report.
See ``docs/architecture.md`` for the rooms of the package and what each may import.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("grape-vla")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0+source"

__all__ = ["__version__"]
