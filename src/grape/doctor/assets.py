"""Whether SimplerEnv's assets are there, which its simulator does not bring along."""

from collections.abc import Iterator

from grape.core.errors import DataError
from grape.doctor.findings import Finding
from grape.envs.simpler.installation import asset_folder

__all__ = ["check_assets"]


def check_assets(needed: bool) -> Iterator[Finding]:
    """Where the assets are, or the command that downloads them.

    Args:
        needed: Whether SimplerEnv was asked about, so that it is an error if they are missing.
    """
    try:
        yield Finding("simpler assets", "ok", str(asset_folder()))
    except DataError as error:
        yield Finding("simpler assets", "error" if needed else "warn", error.message, error.hint)
