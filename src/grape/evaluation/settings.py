"""Settings of ``grape evaluate``."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from grape.collect.settings import RolloutSettings
from grape.core.settings import Range, setting, with_default

__all__ = ["EVALUATION_STATES_START", "EvaluateSettings", "with_defaults"]

_EPISODES = "Episodes"

EVALUATION_STATES_START = 100_000
"""Initial states from this index on are for evaluation; collection and demonstrations count from 0."""


@dataclass(frozen=True)
class EvaluateSettings(RolloutSettings):
    """Measure a policy on fixed initial states: success and control steps a task and overall, with 95 % intervals.

    The same settings always give the same initial states, so two evaluations can be compared pair by pair with
    'grape compare'. How many episodes a question needs: see docs/statistics.md.

    Attributes:
        policy: "expert" for the suite's scripted experts, a checkpoint folder, a name on the Hugging Face hub, e.g.
            openvla/openvla-7b, or a policy on a server, as ws://host:port (see grape serve). On resumption its content
            must be the same; its path may differ.
        out: Folder to write: results.json and the recorded episodes; running again with the same settings resumes.
            Without it the folder is runs/evaluate/NAME-HASH: the policy's name, and eight digits that stand for the
            settings and the policy's content, so the same command finds the same folder again.
        protocol: A published protocol, which fixes initial states, decoding, seed and more: libero-openvla-v1 for the
            libero_* suites, simpler-widowx-24x3 for simpler_widowx (simpler-widowx-variations has its rules for the
            variations of these tasks). What it fixes is shown by --dry-run; a flag that says otherwise is refused.
        tasks: Tasks by index, range or name, e.g. "0,2", "0-3" or "drawer-open"; empty means all (with --protocol: all
            of the protocol).
        initial_states: Initial states of every task by index, e.g. "10,11-20"; empty means --episodes states from
            --first-state on. Suites with few initial states (LIBERO has 50) need it, e.g. "0-49".
        episodes: Initial states a task, where --initial-states is empty; 50 if not given.
        first_state: Index of the first of them, 100000 if not given. States from there on are reserved for evaluation.
        samples: Rollouts from each initial state; more than 1 needs a temperature above 0.
        temperature: Sampling temperature of the policy; 0 decodes greedily, which is the protocol of published
            results.
        until: When an episode ends: at the first success, or after the last control step whatever happened before; then
            success is that of the last state, and the results also say whether it was ever reached. Auto is the first
            success, or what --protocol says.
        operators: Style of the scripted expert, as for 'grape collect'; ignored for a policy.
        seed: Seed of sampling and of the expert's noise, 0 if not given; initial states do not depend on it.
        unnorm_key: Normalization statistics to use, for checkpoints that hold several; empty picks the only one, or
            what --protocol says.
        center_crop: Crop 90 % of the image's area from the middle before the policy sees it, as policies trained with
            random crops need (OpenVLA's LIBERO fine-tunes do): yes, no, or auto for what the checkpoint says (nothing
            means no; with --protocol libero-openvla-v1 a checkpoint of other software that says nothing means yes).
    """

    policy: str = setting(group=_EPISODES, identity=False, common=True)  # its hash is what counts
    out: Path | None = setting(None, identity=False, common=True)
    protocol: str = setting("", group=_EPISODES, identity="unless default", common=True)
    initial_states: str = setting("", group=_EPISODES, common=True)
    episodes: int | None = setting(None, group=_EPISODES, common=True)
    first_state: int | None = setting(None, group=_EPISODES, range=Range(0))
    temperature: float = setting(0.0, group=_EPISODES, range=Range(0), common=True)
    until: Literal["auto", "success", "last-step"] = setting("auto", group=_EPISODES, identity="unless default")
    seed: int | None = setting(None, group=_EPISODES, common=True)
    display: bool = with_default(RolloutSettings, "display", False)


def with_defaults(settings: EvaluateSettings) -> EvaluateSettings:
    """The settings with defaults resolved, as they are recorded."""
    return replace(
        settings,
        episodes=50 if settings.episodes is None else settings.episodes,
        first_state=EVALUATION_STATES_START if settings.first_state is None else settings.first_state,
        seed=0 if settings.seed is None else settings.seed,
    )
