"""What ``grape collect`` can be told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["CollectSettings"]


@dataclass(frozen=True)
class CollectSettings:
    """Roll a policy or a scripted expert out in a simulator and record every step.

    Attributes:
        out: Folder to write; running again with the same settings resumes.
        suite: Suite of tasks, e.g. metaworld, libero_spatial or toy; a wrong name is answered with all there are.
        tasks: Tasks by index, range or name, e.g. "0,2", "0-3" or "drawer-open"; empty means all.
        policy: "expert" for the suite's scripted experts, a checkpoint folder, or a name on the Hugging Face hub, e.g.
            openvla/openvla-7b. On resumption its content must be the same; where it lies may differ.
        initial_states: Initial states of every task by index, e.g. "0-47".
        samples: Rollouts from each initial state.
        temperature: Sampling temperature of the policy; 0 decodes greedily.
        operators: Styles of expert, e.g. "clean", or a mix with a share of the initial states each, e.g.
            "clean:40,sloppy:25": the first 40 states go to the clean operator, the next 25 to the sloppy one.
        seed: Seed of all randomness in this collection.
        until: When an episode ends: at the first success, or at the last step whatever happened before.
        max_steps: Decisions after which an episode ends; 0 means each task's own limit.
        lanes: Episodes that run in lock-step with one batched decision. The last bits of log-probabilities can depend
            on the batch, so results are reproducible for equal lanes.
        workers: Simulator processes; changes the speed only. 0 means one a core.
        timeout: Seconds of silence after which a worker counts as hung and is replaced; above 0, at most 1000000.
        env_python: Another Python interpreter for the simulator processes, e.g. /opt/simpler/bin/python: for suites
            whose packages cannot live beside ours (simpler_widowx-v0). Its packages' versions are recorded.
        display: Also record the larger picture for people, where the suite offers one (lossy).
        unnorm_key: Normalisation statistics to use, for checkpoints that hold several; empty picks the only one.
        center_crop: Crop 90 % of the picture's area from the middle before the policy sees it, as policies trained with
            random crops need (OpenVLA's LIBERO fine-tunes do): yes, no, or auto for what the checkpoint says (nothing
            means no).
        device: Where the policy computes: auto takes a GPU if there is one, else cpu; or cuda, cuda:1.
        dtype: What weights are held and computed in: auto is float32 on a CPU, elsewhere as stored. Adapters are
            float32 always.
        attention: Attention of the language model: sdpa, flash-attention-2 (needs flash-attn and a GPU) or eager.
        load_in_4bit: Hold the language model in 4 bits; needs bitsandbytes and a GPU.
        dry_run: Print the plan and touch nothing.
    """

    out: Path = field(metadata={"identity": False})
    suite: str = "metaworld"
    tasks: str = ""
    policy: str = field(default="expert", metadata={"identity": False})  # its hash is what counts
    initial_states: str = "0-47"
    samples: int = 1
    temperature: float = 0.7
    operators: str = "clean"
    seed: int = 0
    until: Literal["success", "last-step"] = field(default="success", metadata={"identity": "unless default"})
    max_steps: int = field(default=0, metadata={"identity": "unless default"})
    lanes: int = 16
    workers: int = field(default=0, metadata={"identity": False})
    timeout: float = field(default=120.0, metadata={"identity": False})
    env_python: Path | None = field(default=None, metadata={"identity": False})  # versions over there are what counts
    display: bool = True
    unnorm_key: str = ""
    # What these come to (crop, device and type) is part of the run's inputs.
    center_crop: Literal["auto", "yes", "no"] = field(default="auto", metadata={"identity": False})
    device: str = field(default="auto", metadata={"identity": False})
    dtype: Literal["auto", "float32", "bfloat16"] = field(default="auto", metadata={"identity": False})
    attention: Literal["sdpa", "flash-attention-2", "eager"] = field(default="sdpa", metadata={"identity": False})
    load_in_4bit: bool = field(default=False, metadata={"identity": False})
    dry_run: bool = field(default=False, metadata={"identity": False})
