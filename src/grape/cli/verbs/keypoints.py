"""``grape keypoints``."""

from grape.cli.show import show_plain_values
from grape.cli.verb import Verb
from grape.perception import KeypointsSettings, run_keypoints

VERB = Verb(
    name="keypoints",
    settings=KeypointsSettings,
    run=run_keypoints,
    paths=("picture", "keypoints"),
    show=show_plain_values,
    positionals=("episodes",),
    examples=(
        "grape keypoints recordings/episodes.yaml --phrases 'black bowl' plate --out runs/keypoints",
        "grape keypoints recordings/episodes.yaml --features color --region -0.3 0.4 0.01 0.3 0.9 0.3 "
        "--out runs/keypoints",
    ),
)
