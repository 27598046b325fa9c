"""GRAPE: align vision-language-action policies with preferences between whole trajectories.

The data flow, one verb a stage: collect -> score -> pair -> train -> evaluate -> report.
See ``docs/architecture.md`` for its packages and what each may import.
"""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """``__version__``, read from the installed distribution on first access, so that importing the package is fast."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("grape-vla")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0.0.0+source"
