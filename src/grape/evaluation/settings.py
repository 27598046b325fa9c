"""What ``grape evaluate`` can be told."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

__all__ = ["EVALUATION_STATES_START", "EvaluateSettings", "with_defaults"]

EVALUATION_STATES_START = 100_000
"""Initial states from this index on are for evaluation; collection and demonstrations count from 0."""


@dataclass(frozen=True)
class EvaluateSettings:
    """Measure a policy on fixed initial states: success and decisions a task and overall, with 95 % intervals.

    The same settings always give the same initial states, so two evaluations can be compared pair by pair with
    'grape compare'. How many episodes a question needs: see docs/statistics.md.

    Attributes:
        policy: "expert" for the suite's scripted experts, a checkpoint folder, or a name on the Hugging Face hub, e.g.
            openvla/openvla-7b. On resumption its content must be the same; where it lies may differ.
        out: Folder to write: results.json and the recorded episodes; running again with the same settings resumes.
            Without it the folder is runs/evaluate/NAME-HASH: the policy's name, and eight digits that stand for the
            settings and the policy's content, so the same command finds the same folder again.
        protocol: A published protocol, which fixes initial states, decoding, seed and more: libero-openvla-v1 for the
            libero_* suites, simpler-widowx-24x3 for simpler_widowx (simpler-widowx-variations has its rules for the
            variations of these tasks). What it fixes is shown by --dry-run; a flag that says otherwise is refused.
        suite: Suite of tasks, e.g. metaworld, libero_spatial or toy; a wrong name is answered with all there are.
        tasks: Tasks by index, range or name, e.g. "0,2", "0-3" or "drawer-open"; empty means all (with --protocol: all
            of the protocol).
        initial_states: Initial states of every task by index, e.g. "10,11-20"; empty means --episodes states from
            --first-state on. Suites with few initial states (LIBERO has 50) need it, e.g. "0-49".
        episodes: Initial states a task, where --initial-states is empty; 50 if not given.
        first_state: Index of the first of them, 100000 if not given. States from there on are reserved for evaluation.
        samples: Rollouts from each initial state; more than 1 needs a temperature above 0.
        temperature: Sampling temperature of the policy; 0 decodes greedily, which is the protocol of published
            results.
        until: When an episode ends: at the first success, or at the last step whatever happened before; then success
            is that of the last state, and the results also say whether it was ever reached. Auto is the first success,
            or what --protocol says.
        max_steps: Decisions after which an episode ends; 0 means each task's own limit.
        operators: Style of the scripted expert, as for 'grape collect'; ignored for a policy.
        seed: Seed of sampling and of the expert's noise, 0 if not given; initial states do not depend on it.
        lanes: Episodes that run in lock-step with one batched decision.
        workers: Simulator processes; changes the speed only. 0 means one a core.
        timeout: Seconds of silence after which a worker counts as hung and is replaced; above 0, at most 1000000.
        env_python: Another Python interpreter for the simulator processes, e.g. /opt/simpler/bin/python: for suites
            whose packages cannot live beside ours (simpler_widowx-v0). Its packages' versions are recorded.
        display: Also record the larger picture for people, where the suite offers one.
        unnorm_key: Normalisation statistics to use, for checkpoints that hold several; empty picks the only one, or
            what --protocol says.
        center_crop: Crop 90 % of the picture's area from the middle before the policy sees it, as policies trained with
            random crops need (OpenVLA's LIBERO fine-tunes do): yes, no, or auto for what the checkpoint says (nothing
            means no; with --protocol libero-openvla-v1 a checkpoint of other software that says nothing means yes).
        device: Where the policy computes: auto takes a GPU if there is one, else cpu; or cuda, cuda:1.
        dtype: What weights are held and computed in: auto is float32 on a CPU, elsewhere as stored. Adapters are
            float32 always.
        attention: Attention of the language model: sdpa, flash-attention-2 (needs flash-attn and a GPU) or eager.
        load_in_4bit: Hold the language model in 4 bits; needs bitsandbytes and a GPU.
        dry_run: Print the plan and touch nothing.
    """

    policy: str = field(metadata={"identity": False})  # its hash is what counts
    out: Path | None = field(default=None, metadata={"identity": False})
    protocol: str = field(default="", metadata={"identity": "unless default"})
    suite: str = "metaworld"
    tasks: str = ""
    initial_states: str = ""
    episodes: int | None = None
    first_state: int | None = None
    samples: int = 1
    temperature: float = 0.0
    until: Literal["auto", "success", "last-step"] = field(default="auto", metadata={"identity": "unless default"})
    max_steps: int = field(default=0, metadata={"identity": "unless default"})
    operators: str = "clean"
    seed: int | None = None
    lanes: int = 16
    workers: int = field(default=0, metadata={"identity": False})
    timeout: float = field(default=120.0, metadata={"identity": False})
    env_python: Path | None = field(default=None, metadata={"identity": False})  # versions over there are what counts
    display: bool = False
    unnorm_key: str = ""
    # What these come to (crop, device and type) is part of the run's inputs.
    center_crop: Literal["auto", "yes", "no"] = field(default="auto", metadata={"identity": False})
    device: str = field(default="auto", metadata={"identity": False})
    dtype: Literal["auto", "float32", "bfloat16"] = field(default="auto", metadata={"identity": False})
    attention: Literal["sdpa", "flash-attention-2", "eager"] = field(default="sdpa", metadata={"identity": False})
    load_in_4bit: bool = field(default=False, metadata={"identity": False})
    dry_run: bool = field(default=False, metadata={"identity": False})


def with_defaults(settings: EvaluateSettings) -> EvaluateSettings:
    """The settings with a value wherever none was given, so that what is recorded says what was done."""
    return replace(
        settings,
        episodes=50 if settings.episodes is None else settings.episodes,
        first_state=EVALUATION_STATES_START if settings.first_state is None else settings.first_state,
        seed=0 if settings.seed is None else settings.seed,
    )
