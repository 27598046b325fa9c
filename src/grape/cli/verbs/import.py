"""``grape import``: kinds of foreign data, each with its own settings."""

from grape.cli.show import show_plain_values
from grape.cli.verb import Verb, VerbOfKinds
from grape.exchange import (
    ImportGrapeNpySettings,
    ImportGrapeRldsSettings,
    ImportLeRobotSettings,
    ImportVideoSettings,
    run_import_grape_npy,
    run_import_grape_rlds,
    run_import_lerobot,
    run_import_video,
)

GRAPE_RLDS = Verb(
    name="import grape-rlds",
    settings=ImportGrapeRldsSettings,
    run=run_import_grape_rlds,
    paths=("store", "pairs_folder"),
    show=show_plain_values,
    examples=(
        "grape import grape-rlds data/chosen/rlds_np_rollout data/rejected/rlds_np_rollout --out runs/imported",
        "grape import grape-rlds CHOSEN REJECTED --out runs/imported --pictures-after-action",
    ),
    positionals=("chosen", "rejected"),
)

GRAPE_NPY = Verb(
    name="import grape-npy",
    settings=ImportGrapeNpySettings,
    run=run_import_grape_npy,
    paths=("store", "pairs_folder"),
    show=show_plain_values,
    examples=(
        "grape import grape-npy rollouts --out runs/imported",
        "grape import grape-npy rollouts --out runs/imported --gripper '1 opens, 0 closes'",
    ),
    positionals=("folder",),
)

VIDEO = Verb(
    name="import video",
    settings=ImportVideoSettings,
    run=run_import_video,
    paths=("store", "pairs_folder"),
    show=show_plain_values,
    examples=(
        "grape import video recordings/episodes.yaml --out runs/real",
        "grape import video recordings/episodes.yaml --keypoints runs/keypoints --hz 10 --out runs/real",
    ),
    positionals=("episodes",),
)

LEROBOT = Verb(
    name="import lerobot",
    settings=ImportLeRobotSettings,
    run=run_import_lerobot,
    paths=("store",),
    show=show_plain_values,
    examples=(
        "grape import lerobot --data datasets/so100_pick --out runs/so100",
        "grape import lerobot --data datasets/so100_pick --cameras front,wrist --success yes --out runs/so100",
    ),
)

VERB = VerbOfKinds(
    name="import",
    summary="Read data of other programs into stores and pairs of GRAPE.",
    kinds={"grape-rlds": GRAPE_RLDS, "grape-npy": GRAPE_NPY, "lerobot": LEROBOT, "video": VIDEO},
    summaries={
        "grape-rlds": "Chosen and rejected trajectories in two RLDS data sets, as the first implementation had",
        "grape-npy": "Rollout files (.npy) of the first implementation, from SimplerEnv or LIBERO",
        "lerobot": "A LeRobotDataset of version 2.0, 2.1 or 3.0: demonstrations of a robot, with its cameras and state",
        "video": "Recordings of a robot: video, depth, camera, robot log; keypoints are followed in the images",
    },
)
