"""Checks of the installed packages against what the distribution declares; nothing heavy is imported."""

import importlib.metadata
from collections.abc import Iterator, Mapping

from packaging.requirements import Requirement

import grape
from grape.doctor.findings import Finding, Level

__all__ = ["check_packages", "extra_requirements", "is_installed"]

_PURPOSE = {
    "train": "the policy: sft, train, and collect and evaluate with a policy",
    "metaworld": "the simulator of suite metaworld",
    "gymnasium": "suites gym:ID, and tasks as Gymnasium environments",
    "libero": "the simulator of suite libero",
    "simpler": "the simulator of the simpler_widowx suites (SimplerEnv)",
    "vlm": "generated cost specifications, by a model on this machine",
    "endpoint": "generated cost specifications, by a model behind an endpoint",
    "s3": "runs at s3:// addresses",
    "gs": "runs at gs:// addresses",
    "ray": "--launcher ray",
    "serve": "grape serve, and policies at ws://host:port",
    "hub": "grape push, and hf:// names",
    "report": "pages and videos",
    "figures": "grape report --figures",
    "docs": "make docs, in a checkout",
    "video": "grape import video",
    "perception": "models that find keypoints in images",
    "lerobot": "grape export lerobot",
    "rerun": "grape export rerun",
    "4bit": "--load-in-4bit, on a GPU",
    "wandb": "--report-to wandb",
    "tensorboard": "--report-to tensorboard",
    "trackio": "--report-to trackio",
}


def extra_requirements(declared: list[str]) -> Mapping[str, tuple[Requirement, ...]]:
    """Requirements by extra, those of the core under ``""``.

    Args:
        declared: ``Requires-Dist`` entries of a distribution.

    Returns:
        Only what applies to this interpreter and platform; extra ``dev`` and extras that ask for nothing are left out.
    """
    groups: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, declared):
        for extra in ("", *_PURPOSE):
            if _belongs(requirement, extra):
                groups.setdefault(extra, []).append(requirement)
    return {extra: tuple(requirements) for extra, requirements in groups.items()}


def _belongs(requirement: Requirement, extra: str) -> bool:
    """Whether ``extra`` (empty: the core) brings the requirement in on this machine."""
    marker = requirement.marker
    in_core = marker is None or marker.evaluate({"extra": ""})
    return in_core if not extra else not in_core and marker is not None and marker.evaluate({"extra": extra})


def check_packages(needed: frozenset[str], distribution: str = "grape-vla") -> Iterator[Finding]:
    """Compare the installed releases with the declared ones, the core's and each extra's.

    Args:
        needed: Extras without which the work that was asked about cannot be done; one of these that is missing is an
            error. Any other that is missing is no fault, and a warning where it is there in another release.
        distribution: The distribution whose metadata is read.
    """
    try:
        version = importlib.metadata.version(distribution)
        declared = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("grape", "error", f"{distribution} is not installed", "In the checkout: make install")
        return
    if version == grape.__version__:
        yield Finding("grape", "ok", f"{distribution} {version}")
    else:  # an editable installation follows the code, its metadata stay those of the day it was made
        stale = (
            f"the code is {grape.__version__}, but {distribution} was installed as {version}: its requirements are old"
        )
        yield Finding(
            "grape", "warn", stale, "In the checkout: pip install -e . (with the extras you use, e.g. '.[train]')"
        )
    for extra, requirements in extra_requirements(declared).items():
        yield _compare(extra, requirements, needed, distribution)


def _compare(extra: str, requirements: tuple[Requirement, ...], needed: frozenset[str], distribution: str) -> Finding:
    name = f"extra {extra}" if extra else "core packages"
    target = f"{distribution}[{extra}]" if extra else distribution
    present, missing, mismatches = [], [], []
    for requirement in requirements:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        present.append(f"{requirement.name} {version}")
        if not requirement.specifier.contains(version, prereleases=True):
            mismatches.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    if not missing and not mismatches:
        return Finding(name, "ok", ", ".join(present))
    purpose = f" (needed for {_PURPOSE[extra]})" if extra else ""
    mismatches += [f"{', '.join(missing)} missing"] if missing else []
    level: Level = "error" if not extra or extra in needed else "ok" if missing else "warn"
    # An extra without packages was not installed on purpose; one with wrong releases fails later and unclearly.
    description = f"not installed{purpose}" if missing and extra else f"{'; '.join(mismatches)}{purpose}"
    return Finding(name, level, description, f"pip install '{target}'")


def is_installed(extra: str, distribution: str = "grape-vla") -> bool:
    """Whether all requirements of an extra are installed, in any release."""
    try:
        declared = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return False
    for requirement in extra_requirements(declared).get(extra, ()):
        try:
            importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return False
    return True
