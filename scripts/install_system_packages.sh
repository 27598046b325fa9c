#!/usr/bin/env bash
# Install what pip cannot: off-screen OpenGL and Vulkan for the simulators, and a browser for the report's test.
#
# Quick and silent when everything is there. Installs with apt-get where this user may (root, or sudo); otherwise says
# exactly what is missing and leaves with 0, because scoring, pairing and reading reports need none of it.
#
# SimplerEnv draws with Vulkan. Without a graphics card that is Mesa's lavapipe of release 25 or newer. Debian 12 has it
# in its backports suite only; the source of that suite is derived from the machine's own ones, for this installation
# alone: the machine's list of sources stays as it is, and no OpenGL library is exchanged. Where there is a card
# (/dev/dri/renderD*), an installed driver of any release stays as it is.
#
# What this machine's sources turn out not to have is remembered in .system-packages-tried and not asked for again until
# the sources, the list of what is missing or this script change.
set -euo pipefail

GL_PACKAGES=(libosmesa6 libegl1 libgl1-mesa-dri)
VULKAN_DRIVER=mesa-vulkan-drivers
VULKAN_PACKAGES=(libvulkan1 "$VULKAN_DRIVER")
VULKAN_RELEASE=25
TRIED=$(dirname "$0")/../.system-packages-tried

missing=()
add_unless_installed() {
  dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed' || missing+=("$1")
}

if ! command -v dpkg-query >/dev/null 2>&1; then
  echo "install: not a Debian-like system: make sure that OSMesa or EGL (off-screen OpenGL) is there; 'grape doctor' checks it." >&2
  exit 0
fi
for package in "${GL_PACKAGES[@]}"; do add_unless_installed "$package"; done
# Any Chromium serves the report's test, wherever it came from.
if ! command -v chromium >/dev/null 2>&1 && ! command -v chromium-browser >/dev/null 2>&1 \
  && ! command -v google-chrome >/dev/null 2>&1; then
  add_unless_installed chromium
fi
has_nvidia_vulkan() { compgen -G '/usr/share/vulkan/icd.d/nvidia*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/nvidia*.json' >/dev/null; }
has_card() { compgen -G '/dev/dri/renderD*' >/dev/null; }
driver_version() { dpkg-query -W -f='${Version}' "$VULKAN_DRIVER" 2>/dev/null || true; }
serves() { has_card || dpkg --compare-versions "$1" ge "$VULKAN_RELEASE"; }  # is a driver of version "$1" good enough?
if ! has_nvidia_vulkan; then
  for package in "${VULKAN_PACKAGES[@]}"; do add_unless_installed "$package"; done
  driver=$(driver_version)
  if [[ -n $driver && " ${missing[*]} " != *" $VULKAN_DRIVER "* ]] && ! serves "$driver"; then
    missing+=("$VULKAN_DRIVER")
  fi
fi
if [ -n "${NEED_PYTHON_VENV:-}" ]; then missing+=(python3 python3-venv); fi
[ "${#missing[@]}" -gt 0 ] || exit 0
key=$({ echo "${missing[*]}"; cat "$0" /etc/os-release /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } \
  | sha256sum | cut -d' ' -f1)
if [ "$(cat "$TRIED" 2>/dev/null)" = "$key" ]; then exit 0; fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  # sudo may ask for a password only where somebody can answer.
  if command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=(sudo)
  else
    as_root=(false)
  fi
fi
if [ "${as_root[*]:-}" = false ] || ! command -v apt-get >/dev/null 2>&1; then
  {
    echo "install: these system packages are missing and cannot be installed as this user: ${missing[*]}"
    echo "  -> sudo apt-get install --no-install-recommends ${missing[*]}"
    echo "     (GL libraries: without one of them no frame can be rendered; chromium: only the report's browser test needs it;"
    echo "     $VULKAN_DRIVER: only SimplerEnv, in release $VULKAN_RELEASE or newer. On Debian 12 that one is in backports: run"
    echo "     'sudo bash scripts/install_system_packages.sh', or add the suite to your sources and name it: -t bookworm-backports)"
  } >&2
  exit 0
fi

echo "install: system packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
fresh=yes
# Error-Mode: otherwise a source that cannot be reached counts as success.
"${as_root[@]}" apt-get -o APT::Update::Error-Mode=any update -qq >"$log" 2>&1 || {
  fresh=
  echo "install: apt-get update failed; trying with the lists at hand" >&2
}

# Options for apt-get that add the backports suite of this release to the machine's own sources; files in folder "$1".
backports_options() {
  local folder=$1 codename
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  mkdir -p "$folder/sources" "$folder/lists/partial"
  cp /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list "$folder/sources/" 2>/dev/null || true
  cp /etc/apt/sources.list "$folder/sources/main.list" 2>/dev/null || true
  chmod -R a+rX "$folder"  # apt reads as a user of its own
  sed -i -E "/^Suites:/ s/(^|[[:space:]])($codename)([[:space:]]|$)/\1\2 \2-backports\3/
    s/^(deb[[:space:]].*[[:space:]])($codename)([[:space:]].*)$/\1\2\3\n\1\2-backports\3/" "$folder"/sources/*
  options=(-o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$folder/sources" -o "Dir::State::Lists=$folder/lists"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
  release=$codename-backports
}

# A driver of the release that is needed, from backports where the machine's own sources have an older one only.
install_vulkan_driver() {
  local folder candidate options release status=0
  candidate=$(LC_ALL=C apt-cache policy "$VULKAN_DRIVER" | sed -n 's/^ *Candidate: *//p')
  if [[ -n $candidate && $candidate != "(none)" ]] && serves "$candidate"; then
    apt_install "$VULKAN_DRIVER"
    return
  fi
  folder=$(mktemp -d)
  backports_options "$folder"
  # Sources of others may have no backports: that is no reason to give up.
  "${as_root[@]}" apt-get "${options[@]}" update -qq >"$log" 2>&1 || true
  apt_install "${options[@]}" "$VULKAN_DRIVER/$release" || status=$?
  "${as_root[@]}" rm -rf "$folder"
  serves "$(driver_version)" || status=1  # backports of older releases have older drivers
  return "$status"
}

apt_install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$log" 2>&1
}

# One at a time: a release that dropped one of them (OSMesa leaves Mesa after 25.0) still gets the others.
failed=()
for package in "${missing[@]}"; do
  if [ "$package" = "$VULKAN_DRIVER" ]; then install=(install_vulkan_driver); else install=(apt_install "$package"); fi
  "${install[@]}" || { failed+=("$package"); tail -n 5 "$log" >&2; }  # what apt says matters only where it fails
done
if [ "${#failed[@]}" -gt 0 ]; then
  echo "install: could not install ${failed[*]}; 'grape doctor' tells whether a frame can be rendered without." >&2
  # Without fresh lists the next run may have more luck.
  if [ -n "$fresh" ]; then echo "$key" >"$TRIED"; fi
fi
