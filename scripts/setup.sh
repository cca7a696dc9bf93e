#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up all that simtune needs on Debian or Ubuntu: system packages, a virtual environment with
# pinned wheels, and the native parts. Usage: scripts/setup.sh VENV [tests]
# With "tests", also what only the tests use: valgrind, QEMU's system mode, llvm-mca, and an sshd that they
# start themselves, and what cuts networks and confines jobs.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
python=${PYTHON:-python3}

command -v dpkg-query >/dev/null || {
    echo "this script knows Debian and Ubuntu; elsewhere install QEMU's user mode with plugin support and" >&2
    echo "GCC cross compilers with static C libraries, then: pip install . && simtune doctor" >&2
    exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "simtune needs Python 3.11 or newer; set PYTHON to one" >&2
    exit 1
}

# Simulator, native compilers, and a cross linker with a static C library for each foreign ISA.
packages=(qemu-user gcc g++ libc6-dev gcc-riscv64-linux-gnu libc6-dev-riscv64-cross)
case $(dpkg --print-architecture) in
    arm64) packages+=(gcc-x86-64-linux-gnu libc6-dev-amd64-cross) ;;
    *) packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
esac
# QEMU's system mode is 70 MB to fetch, 300 MB on the disk, and takes ten seconds to install.
[ "${2:-}" = tests ] && packages+=(valgrind openssh-client openssh-server llvm qemu-system-misc qemu-system-arm
    bubblewrap iproute2 openssl)
"$python" -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
# The accelerator's core is a Python module; an interpreter that was built here brings its own headers.
"$python" -c 'import os, sysconfig; os.stat(sysconfig.get_paths()["include"] + "/Python.h")' 2>/dev/null ||
    packages+=(python3-dev)

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    install=(apt-get install -y --no-install-recommends "${missing[@]}")
    if [ "$(id -u)" = 0 ]; then
        as_root=()
    elif sudo -n true 2>/dev/null; then
        as_root=(sudo)
    else
        echo "these packages are missing, and only root may install them. Run:" >&2
        echo "  sudo apt-get update && sudo ${install[*]}" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # The tests start sshd themselves; nobody who runs this asked for a server on port 22.
    quiet=()
    if [[ " ${missing[*]} " == *" openssh-server "* && -d /run/systemd/system ]]; then
        quiet=(ssh.service ssh.socket)
        "${as_root[@]}" systemctl mask --runtime "${quiet[@]}" 2>/dev/null || true
    fi
    "${as_root[@]}" apt-get update -q >/dev/null
    "${as_root[@]}" "${install[@]}" >/dev/null
    if [ ${#quiet[@]} -gt 0 ]; then
        "${as_root[@]}" systemctl unmask --runtime "${quiet[@]}" 2>/dev/null || true
        "${as_root[@]}" systemctl disable "${quiet[@]}" 2>/dev/null || true
    fi
fi

if [ ! -e "$venv/.ready" ]; then
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check -r requirements.lock
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -e .
    "$venv/bin/simtune" doctor
fi
