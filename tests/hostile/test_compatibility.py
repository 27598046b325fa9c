"""The commands of ``grape.compat``: what they are told, and what they read."""

import shlex
from pathlib import Path

import pytest

from tests.hostile.baseline import MAKERS
from tests.hostile.cases import EVERY, Case, cases_of, changed_json, check, contents
from tests.hostile.documents import BAD_JSON, ESCAPES
from tests.hostile.foreign import HOSTILE_RECORDS
from tests.hostile.hostile_files import DAMAGED, SPECIAL
from tests.hostile.tensors import HOSTILE_SAFETENSORS

FINETUNE = (
    "-m grape.compat.finetune --vla_path sft/policy --chosen_traj_dir rlds/chosen --rejected_traj_dir rlds/rejected "
    "--dataset_name rlds_np_rollout --run_root_dir OUT --adapter_tmp_dir OUT/adapters --lora_rank 2"
)
TRAIN = f"{FINETUNE} --max_steps 1 -- --dry-run"
TOY = "-- --suite toy --tasks push-block --initial-states 0 --max-steps 2 --workers 1 --unnorm-key toy --until success"
INFERENCE = "-m grape.compat.main_inference --env-name PutCarrotOnPlateInScene-v0 --ckpt-path sft/policy"
LIBERO = (
    "-m grape.compat.run_libero_eval --pretrained_checkpoint sft/policy --task_suite_name libero_goal "
    "--num_trials_per_task 1"
)
SIMPLER_EVAL = f"{INFERENCE} --logging-dir OUT {TOY}"
LIBERO_EVAL = f"{LIBERO} --local_log_dir OUT {TOY}"
EVALUATE = [SIMPLER_EVAL, LIBERO_EVAL]
ALL = [TRAIN, *EVALUATE]
PARTS = ("rlds", "sft")
BAD = contents(BAD_JSON)
FOLDER = "rlds/chosen/rlds_np_rollout/1.0.0"
RECORDS = f"{FOLDER}/rlds_np_rollout-train.tfrecord-00000-of-00001"
DIGITS = "9" * 4000
FOLDERS = {name: make for name, make in SPECIAL.items() if name not in ("20 GB sparse tail", "first half")}

READ = [
    *cases_of("sft/policy", PARTS, ALL, FOLDERS),
    *cases_of("sft/policy/config.json", PARTS, ALL, {**SPECIAL, **BAD, **changed_json(40, 1)}),
    *cases_of("sft/policy/dataset_statistics.json", PARTS, ALL, {**SPECIAL, **BAD, **changed_json(20, 2)}),
    *cases_of("sft/policy/tokenizer.json", PARTS, ALL, {**SPECIAL, **BAD, **changed_json(20, 3)}),
    *cases_of("sft/policy/model.safetensors", PARTS, ALL, {**SPECIAL, **DAMAGED, **HOSTILE_SAFETENSORS}),
    *cases_of("rlds/chosen", PARTS, [TRAIN], FOLDERS),
    *cases_of("rlds/rejected/rlds_np_rollout", PARTS, [TRAIN], FOLDERS),
    *cases_of(f"{FOLDER}/features.json", PARTS, [TRAIN], {**SPECIAL, **BAD, **changed_json(40, 4)}),
    *cases_of(f"{FOLDER}/dataset_info.json", PARTS, [TRAIN], {**SPECIAL, **BAD, **changed_json(30, 5)}),
    *cases_of(RECORDS, PARTS, [TRAIN], {**SPECIAL, **DAMAGED, **HOSTILE_RECORDS}),
]  # fmt: skip


def _flags(command: str, lines: list[str]) -> list[Case]:
    """A case for each line of flags, which stand behind the command's own; ``pipe`` is a named pipe."""
    head, mark, tail = command.partition(" -- ")
    calls = [(*head.split(), *shlex.split(line), *(mark + tail).split()) for line in lines]
    return [
        Case("flags", f"{call[1].rpartition('.')[2]} {ascii(line)[:60]}", ("pipe", *PARTS), lambda path: None, (call,))
        for call, line in zip(calls, lines, strict=True)
    ]


_PATHS = ["pipe", "/dev/zero", "/proc/self/mem", "/", ".", "''", "a\0b", "x" * 1000, f"'{ESCAPES}'", "sft/policy/x/y"]
_NUMBERS = ["nan", "inf", "-1", "0", "1e308", "10e400", DIGITS, DIGITS * 2, "x", "''", "1_0", "\u0663", "\ud800"]

FLAGS = [
    *_flags(TRAIN, [f"--{flag} {path}" for flag in ("vla_path", "chosen_traj_dir") for path in _PATHS]),
    *_flags(TRAIN, [f"--run_root_dir {path}" for path in ("pipe", "/dev/zero", "a\0b", "x" * 1000)]),
    *_flags(TRAIN, [f"--{flag} {number}" for flag in ("batch_size", "lora_rank", "epoch") for number in _NUMBERS]),
    *_flags(TRAIN, [f"--{flag} {number}" for flag in ("learning_rate", "lora_dropout") for number in _NUMBERS]),
    *_flags(TRAIN, [f"--{flag} -{DIGITS}" for flag in ("max_steps", "save_steps", "shuffle_buffer_size")]),
    *_flags(TRAIN, [f"--dataset_name {path}" for path in ("../../..", *_PATHS)]),
    *_flags(TRAIN, [f"--run_id_note {note}" for note in ("a/b", "x" * 300, f"'{ESCAPES}'", "a\0b")]),
    *_flags(
        TRAIN,
        [
            f"--batch_size {DIGITS} --grad_accumulation_steps {DIGITS}",
            "--use_quantization True",
            "--image_aug maybe",
            f"--wandb_project '{ESCAPES}'",
            f"'--{ESCAPES}'",
            "--batch_size",
            "--vla_path=sft/policy=x",
            f"--{'x' * 5000}",
            "-" * 5000,
        ],
    ),
    *_flags(f"RANK={DIGITS} WORLD_SIZE={DIGITS} MASTER_ADDR=x {TRAIN}", [""]),
    *_flags(f"RANK=-1 WORLD_SIZE=2 MASTER_ADDR=x {TRAIN}", [""]),
    *_flags(f"RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=99999999 {TRAIN}", [""]),
    *_flags(f"RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=x LOCAL_RANK=y {TRAIN}", [""]),
    *_flags(SIMPLER_EVAL, [f"--ckpt-path {path}" for path in _PATHS]),
    *_flags(SIMPLER_EVAL, [f"--logging-dir {path}" for path in ("pipe", "/dev/zero", "a\0b", "x" * 1000)]),
    *_flags(SIMPLER_EVAL, [f"--control-freq {number}" for number in _NUMBERS]),
    *_flags(SIMPLER_EVAL, [f"--action-scale {number}" for number in _NUMBERS]),
    *_flags(SIMPLER_EVAL, [f"--robot-init-x {number} {number} 1" for number in _NUMBERS]),
    *_flags(SIMPLER_EVAL, [f"--obj-episode-range 0 {number}" for number in (10**12, 2**63, *_NUMBERS)]),
    *_flags(SIMPLER_EVAL, [f"--obj-episode-range {10**12} {10**12 + 1}", "--obj-episode-range -5 -1"]),
    *_flags(SIMPLER_EVAL, [f"--max-episode-steps {number}" for number in (0, 2**70, *_NUMBERS)]),
    *_flags(SIMPLER_EVAL, [f"--env-name {name}" for name in ("''", "-v0", f"'{ESCAPES}'", "x" * 1000, "a\0b")]),
    *_flags(
        SIMPLER_EVAL,
        [
            f"--rgb-overlay-path '{ESCAPES}'",
            f"--additional-env-save-tags {'x' * 300}",
            f"--additional-env-build-kwargs '{ESCAPES}'",
            "--additional-env-build-kwargs",
            "--robot-init-rot-quat-center 0 0 0",
        ],
    ),
    *_flags(LIBERO_EVAL, [f"--pretrained_checkpoint {path}" for path in _PATHS]),
    *_flags(LIBERO_EVAL, [f"--local_log_dir {path}" for path in ("pipe", "/dev/zero", "a\0b", "x" * 1000)]),
    *_flags(LIBERO_EVAL, [f"--num_trials_per_task {number}" for number in _NUMBERS]),
    *_flags(LIBERO_EVAL, [f"--seed {number}" for number in (2**64, *_NUMBERS)]),
    *_flags(LIBERO_EVAL, [f"--task_suite_name {name}" for name in ("''", f"'{ESCAPES}'", "x" * 1000, "a\0b")]),
    *_flags(LIBERO_EVAL, [f"--run_id_note {'x' * 300}", "--center_crop \ud800", f"--load_in_4bit '{ESCAPES}'"]),
]  # fmt: skip


def _make_pipe(path: Path) -> None:
    import os

    os.mkfifo(path)


MAKERS["pipe"] = _make_pipe


@pytest.mark.parametrize("case", READ, ids=str)
def test_what_is_read(case, baseline, driver, place):
    check(case, baseline, driver, place)


@pytest.mark.parametrize("case", FLAGS[:: 1 if EVERY == 1 else 6], ids=str)
def test_flags(case, baseline, driver, place):
    check(case, baseline, driver, place)
