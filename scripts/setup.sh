#!/usr/bin/env bash
# Debian packages, a virtual environment in .venv, quadbench with its extras in it. Does only what is missing.
# `setup.sh demo` takes what the demo needs, `setup.sh` what tests need besides.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Virtual devices; the native harness. For tests: what they look at processes and sockets with; the harness's; a server of records; a pool of HTCondor; a browser.
packages=(adb adbd bubblewrap toybox mksh
          cmake g++ libonnxruntime-dev nlohmann-json3-dev libstb-dev)
extras=quad
if [[ "${1:-}" != demo ]]; then
    packages+=(iproute2 procps perl-base doctest-dev postgresql condor chromium)
    extras=quad,qnn,litert,ai-hub,quality,farm,parquet,serve,dev
fi

say() { printf '%s\n' "$*" >&2; }

# The first Python that is new enough; nothing if there is none.
find_python() {
    local python
    for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
}

is_installed() { [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]; }

install_packages() {
    local missing=() package
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    if [[ $EUID -ne 0 ]]; then
        say "Debian packages are missing. Install them, then run this again:"
        say "    sudo apt-get update && sudo apt-get install -y ${missing[*]}"
        return 1
    fi
    say "Installing Debian packages: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

python=$(find_python)
if ! "${python:-false}" -c 'import ensurepip' 2>/dev/null; then
    packages+=(python3 python3-venv)
fi
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    install_packages "${packages[@]}"
else
    say "No apt-get here: install what these Debian packages hold yourself: ${packages[*]}"
fi

python=$(find_python)
if [[ -z "$python" ]]; then
    say "Python 3.11 or newer is needed; '${PYTHON:-python3}' is not. Name one with: make setup PYTHON=/path/to/python3"
    exit 1
fi
if [[ ! -x .venv/bin/python ]]; then
    say "Creating .venv with $("$python" --version)"
    "$python" -m venv .venv
fi
say "Installing quadbench into .venv (minutes, the first time)"
# Python compiles what is imported when it is; compiling all that is installed would take most of pip's time.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable ".[$extras]"
