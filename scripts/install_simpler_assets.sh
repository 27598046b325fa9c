#!/usr/bin/env bash
# Download the assets of SimplerEnv's tasks with ManiSkill's own commands: its package does not bring them along.
#
# Only the simpler suites need them, so that where they cannot be downloaded (no network, above all) this names the
# commands, succeeds, and does not try again by itself: run this script again, or remove .venv/.simpler-assets-tried.
#
# Environment:
#   MS_ASSET_DIR   where ManiSkill keeps assets; default: ~/.maniskill.
#   ASSET_SECONDS  most seconds for each download; default: 300.
#   ONCE           not empty: leave quietly where an earlier attempt failed.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=.venv/bin/python
TRIED=.venv/.simpler-assets-tried

missing() {  # names of the downloads, where the simulator is installed without its assets
  "$PYTHON" -c '
import importlib.util
from grape.core.errors import DataError
from grape.envs.simpler.installation import ASSETS, asset_folder
try:
    if importlib.util.find_spec("mani_skill") is not None:
        asset_folder()
except DataError:
    print(*ASSETS)
'
}

if [ -n "${ONCE:-}" ] && [ -e "$TRIED" ]; then exit 0; fi
names=$(missing)
[ -n "$names" ] || exit 0
echo "install: the assets of SimplerEnv's tasks into ${MS_ASSET_DIR:-$HOME/.maniskill}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for name in $names; do
  timeout "${ASSET_SECONDS:-300}" "$PYTHON" -m mani_skill.utils.download_asset "$name" -y </dev/null >"$log" 2>&1 || break
done
if [ -z "$(missing)" ]; then
  rm -f "$TRIED"
  exit 0
fi
touch "$TRIED"
{
  tail -n 1 "$log" | cut -c 1-300
  echo "install: the assets could not be downloaded; only the simpler suites need them."
  echo "  -> with a network: bash scripts/install_simpler_assets.sh, which calls"
  for name in $names; do echo "     $PYTHON -m mani_skill.utils.download_asset $name -y"; done
  echo "     or name a folder that holds them: export MS_ASSET_DIR=..."
} >&2
