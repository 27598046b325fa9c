"""How the main process of a job ended, for processes that it could not tell: a file in the loop's folder.

``srun`` lets the other tasks run on where one fails. Those that have not connected to the main process look for this
file, so that a mistake which only that process notices ends all of them.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from grape.core import errors
from grape.core.errors import GrapeError
from grape.core.files import read_json_mapping, write_json

__all__ = ["failure_left_behind", "leave_ending", "read_ending"]

_FILE = ".process-group-ending"


@contextlib.contextmanager
def failure_left_behind(out: Path, job: Sequence[str]) -> Iterator[None]:
    """Leave the error that ends the block where the other processes of the job look.

    Args:
        out: The loop's folder; made if there is something to leave.
        job: What tells this start of the job from others.
    """
    with contextlib.suppress(OSError):
        (out / _FILE).unlink(missing_ok=True)  # of an earlier start
    try:
        yield
    except GrapeError as error:
        leave_ending(out, job, type(error).__name__, error.message, error.hint)
        raise
    except BaseException as error:
        leave_ending(out, job, GrapeError.__name__, str(error) or type(error).__name__)
        raise


def leave_ending(out: Path, job: Sequence[str], kind: str = "", message: str = "", hint: str = "") -> None:
    """Write the file; without a kind of error the work is done."""
    with contextlib.suppress(OSError, GrapeError):  # the others wait longer then
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / _FILE, {"job": [*job], "error": kind, "message": message, "hint": hint})


def read_ending(out: Path, job: Sequence[str], rank: int) -> bool:
    """Whether the main process is done with its work; False as long as it has left nothing.

    Args:
        out: The loop's folder.
        job: As the main process knows it.
        rank: Number of this process, for the message.

    Raises:
        GrapeError: It failed: an error of the same class.
    """
    try:
        ending = read_json_mapping(out / _FILE, within=out)
    except (GrapeError, OSError, ValueError):  # there is none
        return False
    if ending.get("job") != [*job]:
        return False
    kind, message, hint = (str(ending.get(name, "")) for name in ("error", "message", "hint"))
    if not kind:
        return True
    known = getattr(errors, kind, None)
    error_class = known if isinstance(known, type) and issubclass(known, GrapeError) else GrapeError
    raise error_class(f"Process {rank}: the job's main process failed. {message}", hint)
