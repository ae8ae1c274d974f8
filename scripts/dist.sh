#!/usr/bin/env bash
# Build a wheel and an sdist of the last commit into dist/, or into the folder $1: equal bytes for equal commits.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

into=$(realpath -m "${1:-dist}")
python=$(realpath -s .venv/bin/python)
checkout=$(mktemp -d)
trap 'rm -rf "$checkout"' EXIT
git archive HEAD | tar -x -C "$checkout"
[[ -z "$(git status --porcelain)" ]] || printf 'Changes that are not committed are left out.\n' >&2
# Modes and times of files come into the archives: these are the same for everyone.
chmod -R u=rwX,go=rX "$checkout"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) "$python" -m build --no-isolation --outdir "$into" "$checkout" >/dev/null
printf '%s\n' "$into"/quadbench-*
