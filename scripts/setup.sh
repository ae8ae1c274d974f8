#!/usr/bin/env bash
# The system's packages, a virtual environment in .venv, quadbench with its extras in it. Does only what is missing.
# `setup.sh demo` takes what the demo needs, `setup.sh` what tests need besides. Packages come from apt or dnf; a release that lacks
# some gets the rest, and is told what does not work without them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# By Debian's names. Virtual devices; the native harness, whose headers quadbench fetches where they are not installed.
virtual=(adb adbd bubblewrap toybox mksh)
harness=(cmake make g++ libonnxruntime-dev nlohmann-json3-dev libstb-dev)
wanted=("${virtual[@]}" "${harness[@]}")
extras=quad
if [[ "${1:-}" != demo ]]; then
    # What tests look at processes and sockets with; the harness's tests; a server of records; a pool of HTCondor; a browser.
    wanted+=(iproute2 procps perl-base doctest-dev postgresql condor chromium)
    extras=all,dev
fi
# Fedora's names of those that it is known to have; it packages no adbd, without which there are no virtual devices.
fedora=(android-tools cmake make gcc-c++)

say() { printf '%s\n' "$*" >&2; }

# The first Python that is new enough; nothing if there is none.
find_python() {
    local python
    for python in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
}

is_installed() { [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]; }

# Install the packages that are missing: install_packages TEST-OF-ONE INSTALL-COMMAND PACKAGE...
install_packages() {
    local has=$1 install=$2 missing=() package
    shift 2
    for package in "$@"; do
        "$has" "$package" || missing+=("$package")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    if [[ $EUID -ne 0 ]]; then
        say "Packages are missing. Install them, then run this again:"
        say "    sudo $install ${missing[*]}"
        return 1
    fi
    say "Installing packages: ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive $install "${missing[@]}" >/dev/null
}

# Of packages, those that this release has, or that are installed. Says what the others are for.
available() {
    local package
    for package in "$@"; do
        if is_installed "$package" || [[ -n "$(apt-cache madison "$package" 2>/dev/null)" ]]; then
            printf '%s\n' "$package"
            continue
        fi
        case " ${virtual[*]} : ${harness[*]} " in
            *" $package "*:*) say "This release has no package $package: virtual devices do not run here. Use DEVICES=local, or a phone." ;;
            *:*" $package "*) say "This release has no package $package: quadbench fetches its headers." ;;
            *) say "This release has no package $package: the tests that need it will be skipped or fail." ;;
        esac
    done
}

is_installed_rpm() { rpm --query --quiet "$1"; }

python=$(find_python)
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    if ! "${python:-false}" -c 'import ensurepip' 2>/dev/null; then
        wanted+=(python3 python3-venv)
    fi
    for package in "${wanted[@]}"; do
        if ! is_installed "$package"; then
            [[ $EUID -ne 0 ]] || apt-get update -qq
            mapfile -t wanted < <(available "${wanted[@]}")
            install_packages is_installed "apt-get install -y -qq --no-install-recommends" "${wanted[@]}"
            break
        fi
    done
elif command -v dnf >/dev/null; then
    [[ -n "$python" ]] || fedora+=(python3)
    say "Fedora packages no adbd: virtual devices do not run here. Use DEVICES=local, or a phone."
    install_packages is_installed_rpm "dnf install -y -q" "${fedora[@]}"
elif [[ $(uname) == Darwin ]]; then
    say "On macOS quadbench works with attached phones and AI Hub: virtual devices and the device local need Linux."
    say "The harness for phones needs CMake (brew install cmake) and Android's NDK."
else
    say "No apt-get and no dnf here: install what these Debian packages hold yourself: ${wanted[*]}"
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
