import shlex
from pathlib import Path

import pytest
import tyro

from grape.compat import finetune
from grape.compat.finetune import command_line, main
from grape.compat.finetune_flags import FinetuneFlags, parse_flags
from grape.compat.translation import translate
from grape.core.files import read_json
from grape.training.settings import TrainSettings, check_train
from tests.training.recordings import record, write_pairs, write_policy

# The call in the first public implementation's instructions.
PUBLISHED = shlex.split(
    "--vla_path sft/model --dataset_name rlds_np_rollout --chosen_traj_dir data/chosen"
    " --rejected_traj_dir data/rejected --run_root_dir runs --adapter_tmp_dir adapters --lora_rank 32"
    " --batch_size 1 --grad_accumulation_steps 1 --learning_rate 2e-5 --image_aug False"
    " --wandb_project my-project --wandb_entity me --save_steps 1000"
)


def train_settings(translation) -> TrainSettings:
    settings = tyro.cli(TrainSettings, args=list(translation.arguments))
    check_train(settings)
    return settings


def test_the_published_call_becomes_a_call_of_train():
    translation = translate(parse_flags(PUBLISHED))
    settings = train_settings(translation)
    assert settings.policy == Path("sft/model")
    assert settings.out == Path("runs/model+rlds_np_rollout+b1+lr-2e-05+lora-r32+dropout-0.0")
    assert settings.pairs == translation.pairs
    assert translation.chosen == Path("data/chosen/rlds_np_rollout")
    assert translation.rejected == Path("data/rejected/rlds_np_rollout")
    assert (settings.lora_rank, settings.lora_alpha, settings.lora_targets) == (32, 32, "all")
    assert (settings.lr, settings.schedule, settings.weight_decay, settings.max_grad_norm) == (
        2e-5,
        "constant",
        0.01,
        0,
    )
    assert (settings.beta, settings.nll_weight, settings.length_normalised) == (0.1, 0, True)
    assert (settings.epochs, settings.max_updates, settings.pairs_per_update) == (10, 0, 1)
    assert settings.checkpoint_every == 1000
    assert settings.reference == "recomputed"
    assert settings.report_to == ("wandb",)
    assert translation.environment == {"WANDB_PROJECT": "my-project", "WANDB_ENTITY": "me"}


def test_further_flags():
    more = "--max_steps=500 --use_quantization true --grad_accumulation_steps 4 --batch_size 2 --lora_rank 8"
    flags = parse_flags(
        [*PUBLISHED, *shlex.split(more), "--save_latest_checkpoint_only", "no", "--run_id_note", "again"]
    )
    translation = translate(flags, processes=3, further=["--unnorm-key", "goal", "--lr", "1e-3"])
    settings = train_settings(translation)
    assert settings.load_in_4bit
    assert settings.max_updates == 500
    assert settings.pairs_per_update == 2 * 4 * 3
    assert (settings.lora_rank, settings.lora_alpha) == (8, 8)
    assert settings.keep_checkpoints > 1000
    assert settings.out.name == "model+rlds_np_rollout+b8+lr-2e-05+lora-r8+dropout-0.0+q-4bit--again"
    assert settings.unnorm_key == "goal"
    assert settings.lr == 1e-3
    full = train_settings(translate(parse_flags([*PUBLISHED, "--use_lora", "False"])))
    assert full.lora_rank == 0


def test_flags_without_effect_there_change_nothing_unless_given():
    settings = train_settings(translate(FinetuneFlags()))
    assert settings.max_updates == 0
    assert settings.checkpoint_every == TrainSettings.checkpoint_every
    assert settings.report_to == ()
    assert settings.epochs == 10


def test_other_data_is_other_pairs():
    first, second = (translate(parse_flags(["--chosen_traj_dir", name])).pairs for name in ("a", "b"))
    assert first != second
    assert first == translate(parse_flags(["--chosen_traj_dir", "a", "--lora_rank", "8"])).pairs


def test_each_flag_that_was_ignored_is_explained_where_it_is_given():
    ignored = ["batch_size", "grad_accumulation_steps", "max_steps", "save_steps", "image_aug", "shuffle_buffer_size"]
    values = {"image_aug": "True"}
    for name in ignored:
        notes = translate(parse_flags([f"--{name}", values.get(name, "7")])).notes
        assert sum(f"--{name} " in note for note in notes) == 1, name
    assert not [note for note in translate(FinetuneFlags()).notes if any(f"--{name} " in note for name in ignored)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image_aug", "perhaps"], "--image_aug: it must be True or False, not 'perhaps'"),
        (["--lora_rank", "many"], "--lora_rank: invalid int value: 'many'"),
        (["--lora_rank"], "--lora_rank: expected one argument"),
        (["--chosen_traj_dirs", "x"], "Did you mean 'chosen_traj_dir'"),
        (["--lora_dropout", "0.1"], "the exact gradient"),
        (["--use_quantization", "True", "--use_lora", "False"], "needs adapters"),
    ],
)
def test_mistakes_are_sentences(words, message, capsys):
    assert main(words, {}) == 2
    captured = capsys.readouterr()
    assert message in captured.err.replace("\n", " ")
    assert captured.out == ""


def test_the_printed_command_is_one_for_a_shell(capsys, tmp_path):
    words = [*PUBLISHED, "--vla_path", "my models/it's", "--wandb_project", "a b"]
    translation = translate(parse_flags(words))
    told = shlex.split(command_line(translation).replace("\\\n", " "))
    assert told == ["WANDB_PROJECT=a b", "WANDB_ENTITY=me", "grape", "train", *translation.arguments]


def test_until_rlds_can_be_read_it_says_so_after_the_command(capsys, tmp_path):
    words = [*PUBLISHED, "--chosen_traj_dir", str(tmp_path / "c"), "--rejected_traj_dir", str(tmp_path / "r")]
    assert main(words, {}) == 2
    assert "does not exist" in capsys.readouterr().err
    for side in ("c", "r"):
        (tmp_path / side / "rlds_np_rollout").mkdir(parents=True)
    assert main(words, {"RANK": "0", "WORLD_SIZE": "1"}) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("WANDB_PROJECT=my-project WANDB_ENTITY=me grape train \\\n    --pairs runs/pairs-")
    assert "cannot be read by this release yet" in captured.err
    assert "--save_steps had no effect" in captured.err
    assert main(words, {"RANK": "1", "WORLD_SIZE": "2"}) == 2
    assert capsys.readouterr() == ("", "")


def test_pairs_that_are_there_are_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(finetune.os, "environ", dict(finetune.os.environ))
    policy = write_policy(tmp_path / "policy")
    store = record(tmp_path / "store", policy, lengths=(3, 2))
    words = ["--vla_path", str(policy), "--run_root_dir", str(tmp_path / "runs"), "--lora_rank", "2", "--epoch", "1"]
    write_pairs(translate(parse_flags(words)).pairs, store, pairs=((0, 1),))
    assert main([*words, "--", "--dtype", "float32"], {}) == 0
    out = tmp_path / "runs" / "policy+bridge_orig+b1+lr-2e-05+lora-r2+dropout-0.0"
    assert read_json(out / "done.json")["pairs"] == 1
    assert (out / "policy" / "adapter_model.safetensors").exists()
