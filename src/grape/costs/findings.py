"""What static checks find."""

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """Something found by a static check.

    Attributes:
        code: Stable name of the check, e.g. ``"unknown-keypoint"``.
        where: Place in the specification.
        message: One sentence.
        error: Whether the specification is unusable; otherwise a warning.
    """

    code: str
    where: str
    message: str
    error: bool = True

    def __str__(self) -> str:
        return f"[{self.code}] {self.where}: {self.message}"
