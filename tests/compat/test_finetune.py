import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tyro

from grape.compat import finetune
from grape.compat.finetune import command_line, main
from grape.compat.finetune_flags import FinetuneFlags, parse_flags
from grape.compat.translation import translate
from grape.core.errors import SettingsError
from grape.core.files import read_json
from grape.exchange import ImportGrapeRldsSettings, RldsExportSettings, run_export_rlds
from grape.policies.openvla import load_policy
from grape.preferences import read_pairs
from grape.store import EpisodeStore
from grape.store.rlds import open_rlds
from grape.store.rlds.joining import join_pairs
from grape.store.rlds.standardize import RULES
from grape.training.settings import TrainSettings, check_train
from tests.training.recordings import record, write_pairs, write_policy

# The call in the first public implementation's instructions.
PUBLISHED = shlex.split(
    "--vla_path sft/model --dataset_name rlds_np_rollout --chosen_traj_dir data/chosen"
    " --rejected_traj_dir data/rejected --run_root_dir runs --adapter_tmp_dir adapters --lora_rank 32"
    " --batch_size 1 --grad_accumulation_steps 1 --learning_rate 2e-5 --image_aug False"
    " --wandb_project my-project --wandb_entity me --save_steps 1000"
)


@pytest.fixture(autouse=True)
def wandb(monkeypatch):
    """A stand-in for the package, which need not be installed."""
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))


def train_settings(translation) -> TrainSettings:
    settings = tyro.cli(TrainSettings, args=list(translation.arguments))
    check_train(settings)
    return settings


def test_the_published_call_becomes_a_call_of_train():
    translation = translate(parse_flags(PUBLISHED))
    settings = train_settings(translation)
    assert settings.policy == Path("sft/model")
    assert settings.out == Path("runs/model+rlds_np_rollout+b1+lr-2e-05+lora-r32+dropout-0.0")
    assert settings.pairs == translation.pairs.out / "pairs"
    assert translation.pairs.chosen == Path("data/chosen/rlds_np_rollout")
    assert translation.pairs.rejected == Path("data/rejected/rlds_np_rollout")
    assert translation.pairs.policy == settings.policy
    assert settings.unnorm_key == "rlds_np_rollout"
    assert settings.norm_stats == translation.pairs.out / "dataset_statistics.json"
    assert (settings.lora_rank, settings.lora_alpha, settings.lora_targets) == (32, 32, "all")
    assert (settings.lr, settings.schedule, settings.weight_decay, settings.max_grad_norm) == (
        2e-5,
        "constant",
        0.01,
        0,
    )
    assert (settings.beta, settings.anchor, settings.nll_weight) == (0.1, 0, None)
    assert settings.length_normalised
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
    def folder(*words, further=()):
        return translate(parse_flags(words), further=further).pairs.out

    first = folder("--chosen_traj_dir", "a")
    others = (
        folder("--chosen_traj_dir", "b"),
        folder("--chosen_traj_dir", "a", "--vla_path", "another"),
        folder("--chosen_traj_dir", "a", further=["--unnorm-key=goal"]),
    )
    assert len({first, *others}) == 4
    assert first == folder("--chosen_traj_dir", "a", "--lora_rank", "8", further=["--lr", "1", "--device", "cpu"])


def test_flags_of_train_that_the_import_shares():
    further = ["--center-crop", "yes", "--unnorm-key", "goal", "--device", "cpu"]
    translation = translate(FinetuneFlags(), further=further)
    imported = tyro.cli(
        ImportGrapeRldsSettings,
        args=["--chosen", *translation.import_arguments[:1], "--rejected", *translation.import_arguments[1:]],
    )
    assert imported == translation.pairs
    assert (imported.unnorm_key, imported.center_crop, translation.device) == ("goal", "yes", "cpu")
    with pytest.raises(SettingsError, match="expected one argument"):
        translate(FinetuneFlags(), further=["--device"])


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
    told = command_line(translation).replace("\\\n", " ").splitlines()
    assert shlex.split(told[0]) == ["grape", "import", "grape-rlds", *translation.import_arguments]
    assert shlex.split(told[1]) == ["WANDB_PROJECT=a b", "WANDB_ENTITY=me", "grape", "train", *translation.arguments]


def test_missing_data_is_told_once_after_the_commands(capsys, tmp_path):
    policy = write_policy(tmp_path / "policy")
    words = [*PUBLISHED, "--chosen_traj_dir", str(tmp_path / "c"), "--vla_path", str(policy)]
    assert main(words, {"RANK": "0"}) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("grape import grape-rlds ")
    assert "WANDB_PROJECT=my-project WANDB_ENTITY=me grape train \\\n    --pairs runs/pairs-" in captured.out
    assert "rlds_np_rollout does not exist" in captured.err
    assert "--save_steps had no effect" in captured.err
    assert main(words, {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}) == 2
    assert capsys.readouterr() == ("", "")
    assert main(words, {"RANK": "1"}) == 2  # of a scheduler: there is no other process
    assert "rlds_np_rollout does not exist" in capsys.readouterr().err


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Words of a call that trains a tiny policy on an export of trajectories which it sampled."""
    monkeypatch.setattr(finetune.os, "environ", dict(finetune.os.environ))
    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
    policy = write_policy(tmp_path / "policy")
    store = record(tmp_path / "store", policy, lengths=(3, 2, 4, 3))
    pairs = write_pairs(tmp_path / "pairs", store, pairs=((0, 1), (2, 3)))
    run_export_rlds(RldsExportSettings(tmp_path / "rlds", pairs=pairs))
    return [
        *PUBLISHED,
        *("--vla_path", str(policy), "--run_root_dir", str(tmp_path / "runs"), "--lora_rank", "2", "--epoch", "1"),
        *("--chosen_traj_dir", str(tmp_path / "rlds/chosen"), "--rejected_traj_dir", str(tmp_path / "rlds/rejected")),
    ]


def folders(words, further=()):
    translation = translate(parse_flags(words), further=further)
    return translation.pairs.out, train_settings(translation).out


def test_two_rlds_folders_are_trained_on_without_the_tracker_that_is_missing(call, capsys):
    assert main([*call, "--", "--dtype", "float32"], {}) == 0
    captured = capsys.readouterr()
    assert "warning: Nothing is sent to wandb, whose package is not installed" in captured.err
    assert "pip install 'grape-vla[wandb]'." in captured.err
    assert "report-to" not in captured.out
    imported, out = folders(call)
    assert read_json(out / "done.json")["pairs"] == 1  # the other one is in split val
    policy = load_policy(out / "policy")
    assert policy.unnorm_key == "rlds_np_rollout"
    statistics = read_json(imported / "dataset_statistics.json")
    assert policy.config.norm_stats["rlds_np_rollout"] == statistics["rlds_np_rollout"]
    joined = join_pairs(
        *(open_rlds(imported.parent.parent / "rlds" / side / "rlds_np_rollout") for side in ("chosen", "rejected")),
        RULES["plain"],
        warn=pytest.fail,
    )
    assert statistics == {"rlds_np_rollout": joined.statistics()}
    assert len(policy.config.norm_stats) == 2
    store = EpisodeStore.open(imported)
    trajectory = store.read(store.ids()[0])
    np.testing.assert_allclose(
        policy.decode_tokens(trajectory.action_tokens)[:, :6], trajectory.actions[:, :6], atol=0.4
    )
    capsys.readouterr()
    assert main([*call, "--", "--dtype", "float32"], {}) == 0  # all is there already


def test_by_its_own_statistics_a_policy_finds_the_tokens_it_sampled(call, tmp_path):
    policy = load_policy(tmp_path / "policy")
    key = policy.unnorm_key
    further = ["--unnorm-key", key]
    assert main([*call, "--", *further], {}) == 0
    imported, out = folders(call, further)
    assert load_policy(out / "policy").config.norm_stats.keys() == {key}
    back, source = EpisodeStore.open(imported), EpisodeStore.open(tmp_path / "store")
    pairs = {pair.pair_id: pair for pair in read_pairs(tmp_path / "pairs")}
    for meta in back.metas():
        pair = pairs[str(meta.extra["file_path"])]
        due = source.read(pair.chosen if meta.episode_id.endswith("-chosen") else pair.rejected)
        # Tokens outside the action range act like the first or last bin, and that is what comes back.
        found = policy.decode_tokens(back.read(meta.episode_id).action_tokens)
        np.testing.assert_array_equal(found, policy.decode_tokens(due.action_tokens))


def test_a_missing_tracker_that_grape_train_is_told_of_stops_before_the_import(call, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "trackio", None)
    assert main([*call, "--", "--report-to", "trackio"], {}) == 2
    assert "--report-to trackio needs a package" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
