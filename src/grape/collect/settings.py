"""Settings of ``grape collect``, and those of every verb that plays episodes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grape.core.settings import Range, setting, with_default
from grape.policies.opening import PolicySettings, PrecisionSettings

__all__ = ["CollectSettings", "LauncherSettings", "RolloutSettings"]

_EPISODES, _SIMULATOR, _LAUNCHER = "Episodes", "Simulator", "Where episodes are played"
_PARTS = "Parts of a collection"
MAX_TIMEOUT = 1_000_000.0
_MIXED_SAMPLES = 4  # as many times --samples at most from a state of mixed outcome: one state is not to take all


@dataclass(frozen=True)
class LauncherSettings:
    """Where episodes are played; changes the speed, not the results.

    Attributes:
        launcher: local for processes of this machine, ray for processes on the nodes of a Ray cluster. auto is local,
            and in a loop on several GPUs (--gpus) ray, with a replica on each.
        ray_address: host:port of the cluster's head, of which this machine is a node; empty starts Ray on this machine
            alone.
        replicas: Copies of the policy, each with workers of its own; 0 means one for each GPU of the cluster, at least
            one.
        replica_gpus: GPUs of a replica, e.g. 0.5; -1 means 1 for a policy where there are GPUs, else 0.
        replica_cpus: CPUs that are reserved for a replica; 0 means 1. Its policy has as many threads as this process's
            would have, since the last bits of what a CPU computes depend on their number.
        worker_cpus: CPUs that are reserved for a simulator process.
        worker_resource: Custom resource of the nodes on which simulators may run, e.g. simulator; empty for all nodes.
    """

    launcher: Literal["auto", "local", "ray"] = setting("auto", group=_LAUNCHER, identity=False)
    ray_address: str = setting("", group=_LAUNCHER, identity=False)
    replicas: int = setting(0, group=_LAUNCHER, range=Range(0), identity=False)
    replica_gpus: float = setting(-1.0, group=_LAUNCHER, range=Range(-1), identity=False)
    replica_cpus: int = setting(0, group=_LAUNCHER, range=Range(0), identity=False)
    worker_cpus: float = setting(1.0, group=_LAUNCHER, range=Range(0), identity=False)
    worker_resource: str = setting("", group=_LAUNCHER, identity=False)


@dataclass(frozen=True)
class RolloutSettings(PolicySettings, LauncherSettings):
    """How episodes are played. The resolved crop, conventions and precision are part of a run's inputs.

    Attributes:
        suite: Suite of tasks, e.g. metaworld, libero_spatial or toy; an unknown name is answered with a list of all.
            gym:ID, gym:MODULE:ID or gym:FILE.yaml is any Gymnasium environment with images.
        tasks: Tasks by index, range or name, e.g. "0,2", "0-3" or "drawer-open"; empty means all.
        samples: Rollouts from each initial state.
        operators: Styles of expert (clean, noisy, sloppy, held-noise, slow), or a mix with a share of the initial
            states each, e.g. "clean:40,sloppy:25": the first 40 go to the clean operator, 25 to the sloppy one.
        max_steps: Control steps after which an episode ends, which are its decisions unless a policy acts in chunks; 0
            means each task's own limit.
        execute: Actions of a policy's chunk that are executed before it looks again; 0 means the whole chunk. Of
            scripted experts, who act at every control step: control steps from one image to the next; 0 means 1.
        lanes: Episodes that run in lock-step with one batched decision. The last bits of log-probabilities can depend
            on the batch, so results are reproducible for equal lanes.
        workers: Simulator processes; changes the speed only. 0 means one a core, with Ray one for each --worker-cpus.
        timeout: Seconds of silence after which a worker counts as hung and is replaced, for each control step of a
            decision; above 0, at most 1000000. With Ray at least 90, so that a lost node is no hung worker.
        env_python: Another Python interpreter for the simulator processes, e.g. /opt/simpler/bin/python: for suites
            whose packages cannot be installed beside GRAPE's (simpler_widowx-v0). Its packages' versions are recorded.
        display: Also record the larger image for people, where the suite offers one (lossy).
        dry_run: Print the plan and touch nothing.
        device: Where the policy computes: auto takes a GPU if there is one, else cpu; or cuda, cuda:1.
    """

    suite: str = setting("metaworld", group=_EPISODES, common=True)
    tasks: str = setting("", group=_EPISODES, common=True)
    samples: int = setting(1, group=_EPISODES, range=Range(1), common=True)
    operators: str = setting("clean", group=_EPISODES)
    max_steps: int = setting(0, group=_EPISODES, range=Range(0), identity="unless default")
    execute: int = setting(0, group=_EPISODES, range=Range(0), identity="unless default")
    lanes: int = setting(16, group=_SIMULATOR, range=Range(1))
    workers: int = setting(0, group=_SIMULATOR, range=Range(0), identity=False, common=True)
    timeout: float = setting(120.0, group=_SIMULATOR, range=Range(0, MAX_TIMEOUT, open_low=True), identity=False)
    env_python: Path | None = setting(None, group=_SIMULATOR, identity=False)  # its packages' versions are what counts
    display: bool = setting(True, group=_SIMULATOR)
    center_crop: Literal["auto", "yes", "no"] = with_default(PolicySettings, "center_crop", "auto", identity=False)
    dtype: Literal["auto", "float32", "bfloat16"] = with_default(PrecisionSettings, "dtype", "auto", identity=False)
    attention: Literal["sdpa", "flash-attention-2", "eager"] = with_default(
        PrecisionSettings, "attention", "sdpa", identity=False
    )
    load_in_4bit: bool = with_default(PrecisionSettings, "load_in_4bit", False, identity=False)
    preset: str = with_default(PolicySettings, "preset", "", identity=False)
    chunk: int | None = with_default(PolicySettings, "chunk", None, identity=False)
    convention: tuple[str, ...] = with_default(PolicySettings, "convention", (), identity=False)
    dry_run: bool = setting(False, identity=False, common=True)


@dataclass(frozen=True)
class CollectSettings(RolloutSettings):
    """Roll a policy or a scripted expert out in a simulator and record every decision.

    Attributes:
        out: Folder to write; running again with the same settings resumes.
        policy: "expert" for the suite's scripted experts, a checkpoint folder, a name on the Hugging Face hub, e.g.
            openvla/openvla-7b, or a policy on a server, as ws://host:port (see grape serve). On resumption its content
            must be the same; its path may differ.
        initial_states: Initial states of every task by index, e.g. "0-47".
        mixed_episodes: After --samples rollouts from each initial state, at most this many episodes more, all from
            states whose success rate so far lies between 10 and 90 %: only these can give pairs of a success and a
            failure. Rounds of --samples a state go to the most even states first.
        mixed_samples: Rollouts from one initial state at most, where --mixed-episodes asks for more; 0 means four times
            --samples.
        temperature: Sampling temperature of the policy; 0 decodes greedily.
        seed: Seed of all randomness in this collection.
        until: When an episode ends: at the first success, or after the last control step whatever happened before.
        shard: I/N, e.g. 2/8: play the second of eight parts of the collection, on a machine of its own; grape merge
            joins the parts to what one run would have written. Initial states stay whole where groups of --lanes allow.
        extend: Add to the run in --out what these settings ask for beyond it: further tasks, initial states, samples or
            mixed episodes. What was recorded stays as it is.
    """

    out: Path = setting(identity=False, common=True)
    policy: str = setting("expert", group=_EPISODES, identity=False, common=True)  # its hash is what counts
    initial_states: str = setting("0-47", group=_EPISODES, common=True)
    mixed_episodes: int = setting(0, group=_EPISODES, range=Range(0), identity="unless default")
    mixed_samples: int = setting(0, group=_EPISODES, range=Range(0), identity="unless default")
    temperature: float = setting(0.7, group=_EPISODES, range=Range(0), common=True)
    seed: int = setting(0, group=_EPISODES, common=True)
    until: Literal["success", "last-step"] = setting("success", group=_EPISODES, identity="unless default")
    shard: str = setting("", group=_PARTS, identity="unless default", common=True)
    extend: bool = setting(False, group=_PARTS, identity=False, common=True)

    @property
    def most_samples(self) -> int:
        """Rollouts from one initial state at most."""
        return (self.mixed_samples or _MIXED_SAMPLES * self.samples) if self.mixed_episodes else self.samples
