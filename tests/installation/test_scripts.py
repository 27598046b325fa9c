"""The scripts behind ``make install``, with stand-ins for the programs that would change this machine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
CARDS = [*Path("/dev/dri").glob("renderD*"), *Path("/usr/share/vulkan/icd.d").glob("nvidia*.json")]

# Says that everything but libosmesa6 is installed; $DRIVER is the Vulkan driver's version.
DPKG_QUERY = """
case "$2 $3" in
  *Version*) printf %s "$DRIVER" ;;
  *libosmesa6) exit 1 ;;
  *) printf 'install ok installed' ;;
esac
"""
APT_GET = 'echo "$*" >>calls; case "$*" in *libosmesa6*) exit 100 ;; *update*) exit "${UPDATE:-0}" ;; esac'
APT_CACHE = 'if [ "${LC_ALL:-}" = C ]; then echo "  Candidate: 25.2.1"; else echo "  Installationskandidat: 25.2.1"; fi'


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("scripts", "requirements", "programs"):
        (tmp_path / folder).mkdir()
    for script in SCRIPTS.iterdir():
        shutil.copy(script, tmp_path / "scripts")
    shutil.copy(SCRIPTS.parent / "requirements" / "simulator.txt", tmp_path / "requirements")
    stand_ins = {"dpkg-query": DPKG_QUERY, "apt-get": APT_GET, "apt-cache": APT_CACHE, "id": "echo 0"}
    for name, body in stand_ins.items():
        program(tmp_path / "programs", name, body)
    program(tmp_path / "programs", "dpkg", '[ "${2%%.*}" -ge "$4" ]')
    return tmp_path


def run(checkout: Path, script: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{checkout / 'programs'}:{os.environ['PATH']}", **settings}
    return subprocess.run(
        ["bash", f"scripts/{script}"], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def calls(checkout: Path) -> list[str]:
    log = checkout / "calls"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_what_the_sources_do_not_have_is_asked_for_once(checkout: Path) -> None:
    first = run(checkout, "install_system_packages.sh", DRIVER="25.0")
    assert (first.returncode, "could not install libosmesa6" in first.stderr) == (0, True)
    assert sum("update" in call for call in calls(checkout)) == 1
    second = run(checkout, "install_system_packages.sh", DRIVER="25.0")
    assert (second.returncode, second.stdout, second.stderr, calls(checkout)) == (0, "", "", [])


def test_without_fresh_lists_the_next_run_tries_again(checkout: Path) -> None:
    for _ in range(2):
        assert run(checkout, "install_system_packages.sh", DRIVER="25.0", UPDATE="100").returncode == 0
        assert any("libosmesa6" in call for call in calls(checkout))


@pytest.mark.skipif(bool(CARDS), reason="this machine has a card, whose driver is left alone")
def test_an_old_driver_is_exchanged_whatever_language_apt_speaks(checkout: Path) -> None:
    run(checkout, "install_system_packages.sh", DRIVER="22.3", LC_ALL="", LANG="de_DE.UTF-8")
    # The plain name: the machine's own sources have it, backports were not asked.
    assert any(call.endswith("--no-install-recommends mesa-vulkan-drivers") for call in calls(checkout))


def test_without_a_package_index_the_second_environment_is_left_out(checkout: Path) -> None:
    fails = 'mkdir -p .venv-sim/bin; ln -sf "$(command -v false)" .venv-sim/bin/python'
    program(checkout / "programs", "python3.9", fails)
    done = run(checkout, "install_simulator_python.sh", SIM_PYTHON="python3.9")
    assert done.returncode == 0
    assert "bash scripts/install_simulator_python.sh" in done.stderr
    assert not (checkout / ".venv-sim").exists()


# Stands for .venv/bin/python: the assets are missing until a download leaves "there"; $DOWNLOAD is what one does.
ASSET_PYTHON = """
case "$*" in
  *asset_folder*) [ -e there ] || echo one two ;;
  *download_asset*) echo "$3 $4" >>calls; eval "$DOWNLOAD" ;;
esac
"""


@pytest.fixture
def with_simulator(checkout: Path) -> Path:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    program(checkout / ".venv" / "bin", "python", ASSET_PYTHON)
    return checkout


def test_assets_are_downloaded_where_that_works(with_simulator: Path) -> None:
    first = run(with_simulator, "install_simpler_assets.sh", ONCE="yes", DOWNLOAD="touch there")
    assert (first.returncode, first.stderr, calls(with_simulator)) == (0, "", ["one -y", "two -y"])
    second = run(with_simulator, "install_simpler_assets.sh", ONCE="yes", DOWNLOAD="exit 1")
    assert (second.returncode, second.stdout, second.stderr, calls(with_simulator)) == (0, "", "", [])


def test_without_a_network_the_commands_are_named_once(with_simulator: Path) -> None:
    offline = "echo no network >&2; exit 1"
    first = run(with_simulator, "install_simpler_assets.sh", ONCE="yes", DOWNLOAD=offline)
    assert first.returncode == 0
    assert "no network" in first.stderr
    for name in ("one", "two"):
        assert f".venv/bin/python -m mani_skill.utils.download_asset {name} -y" in first.stderr
    assert calls(with_simulator) == ["one -y"]
    second = run(with_simulator, "install_simpler_assets.sh", ONCE="yes", DOWNLOAD="touch there")
    assert (second.stdout, second.stderr, calls(with_simulator)) == ("", "", [])
    by_hand = run(with_simulator, "install_simpler_assets.sh", DOWNLOAD="touch there")
    assert (by_hand.returncode, by_hand.stderr, calls(with_simulator)) == (0, "", ["one -y", "two -y"])
    assert not (with_simulator / ".venv" / ".simpler-assets-tried").exists()


def test_a_download_that_hangs_is_ended(with_simulator: Path) -> None:
    done = run(with_simulator, "install_simpler_assets.sh", DOWNLOAD="exec sleep 600", ASSET_SECONDS="1")
    assert done.returncode == 0
    assert "could not be downloaded" in done.stderr
