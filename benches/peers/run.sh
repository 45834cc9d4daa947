#!/usr/bin/env bash
# The benchmark behind `./build.sh bench`: our towers and the peers' in one browser run, at true ViT-B/16-224 size.
# Everything it needs is made once under target/bench/ and used again. Arguments go to bench.mjs (--rounds 7 …).
#   SIGLIP_WEB_BENCH_MODEL      a SigLIP checkpoint to run (default: random weights of that size)
#   SIGLIP_WEB_BENCH_TOKENIZER  folder of a real SigLIP tokenizer for the random weights (default: a small one)
#   SIGLIP_WEB_BENCH_PYTHON     a Python that has the packages of requirements.txt (default: a venv made here)
#   SIGLIP_WEB_BENCH_LITERT     a Python that has the packages of requirements-litert.txt (default: another venv made here)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${CARGO_TARGET_DIR:-$root/target}
[[ $work == /* ]] || work=$root/$work
work=$work/bench
mkdir -p "$work"

say() { printf '== %s\n' "$*" >&2; }
die() {
  printf 'bench: %s\n' "$*" >&2
  exit 1
}
stamp() { cat "$@" | sha256sum | cut -d ' ' -f 1; }
# fresh STAMP_FILE VALUE: whether the step that wrote STAMP_FILE need not run again
fresh() { [[ -f $1 && $(<"$1") == "$2" ]]; }

# need_venv NAME WHAT FILE...: a venv under $work with the packages of these files
need_venv() {
  local name=$1 what=$2 wanted
  shift 2
  wanted=$(stamp "$@")
  fresh "$work/$name/.stamp" "$wanted" && return
  command -v python3 >/dev/null || die "Python 3.11 or newer is missing: install it with: sudo apt-get install python3 python3-venv"
  say "Installing $what under $work/$name (some gigabytes, once)"
  python3 -m venv --clear "$work/$name" || die "python3 can't make a venv: install it with: sudo apt-get install python3-venv"
  "$work/$name/bin/python" -m pip install --quiet -r "$1" >&2 || die "pip could not install $1: see its message above"
  echo "$wanted" >"$work/$name/.stamp"
}
python=${SIGLIP_WEB_BENCH_PYTHON:-}
need_python() {
  [[ -z $python ]] || return 0
  python=$work/venv/bin/python
  need_venv venv "torch, transformers and onnx" "$here/requirements.txt" "$root/tests/reference/requirements.txt"
}

# The peers' JavaScript. Their install scripts only fetch what Node needs.
wanted=$(stamp "$here/package-lock.json")
if ! fresh "$work/npm/.stamp" "$wanted"; then
  say "Installing the peers' npm packages"
  mkdir -p "$work/npm"
  cp "$here/package.json" "$here/package-lock.json" "$work/npm/"
  (cd "$work/npm" && npm ci --ignore-scripts --omit=optional --no-audit --no-fund >&2) || die "npm could not install the peers: check the network"
  echo "$wanted" >"$work/npm/.stamp"
fi

# Searching takes no model.
if [[ " $* " == *" --sections search "* ]]; then exec node "$here/bench.mjs" --npm "$work/npm/node_modules" "$@"; fi

model=${SIGLIP_WEB_BENCH_MODEL:-}
if [[ -z $model ]]; then
  model=$work/model
  tokenizer=${SIGLIP_WEB_BENCH_TOKENIZER:-}
  wanted="$(stamp "$root/tests/reference/model.py") $tokenizer"
  if ! fresh "$model/.stamp" "$wanted"; then
    need_python
    say "Making a ViT-B/16-224 checkpoint with random weights (0.8 GB)"
    PYTHONDONTWRITEBYTECODE=1 "$python" "$root/tests/reference/model.py" --preset base-patch16-224 --out "$model" ${tokenizer:+--tokenizer "$tokenizer"} >&2 ||
      die "the checkpoint could not be made: see the messages above"
    echo "$wanted" >"$model/.stamp"
  fi
fi
[[ -f $model/config.json ]] || die "$model holds no config.json: SIGLIP_WEB_BENCH_MODEL must name a checkpoint folder"
model=$(cd "$model" && pwd)

files="$model $(stat -L -c '%s %Y' "$model"/*.safetensors | tr '\n' ' ')"
onnx=$work/onnx
wanted="$(stamp "$here/export.py" "$model"/*.json) $files"
if ! fresh "$onnx/.stamp" "$wanted"; then
  need_python
  say "Exporting it to ONNX for the peers"
  rm -rf "$onnx"
  PYTHONDONTWRITEBYTECODE=1 "$python" "$here/export.py" --model "$model" --out "$onnx" >"$work/export.log" 2>&1 ||
    die "the export failed: see $work/export.log"
  echo "$wanted" >"$onnx/.stamp"
fi

litert=$work/litert
wanted="$(stamp "$here/export_litert.py" "$model"/*.json) $files"
if ! fresh "$litert/.stamp" "$wanted"; then
  converter=${SIGLIP_WEB_BENCH_LITERT:-}
  if [[ -z $converter ]]; then
    converter=$work/venv-litert/bin/python
    need_venv venv-litert "LiteRT's converter" "$here/requirements-litert.txt"
  fi
  say "Converting it for LiteRT.js"
  rm -rf "$litert"
  PYTHONDONTWRITEBYTECODE=1 "$converter" "$here/export_litert.py" --model "$model" --out "$litert" >"$work/litert.log" 2>&1 ||
    die "the conversion failed: see $work/litert.log"
  echo "$wanted" >"$litert/.stamp"
fi

sizes=$work/sizes
wanted=$(stamp "$here/export.py" "$root/tests/reference/model.py")
if ! fresh "$sizes/.stamp" "$wanted"; then
  need_python
  say "Making checkpoints whose image towers have other sizes (1.4 GB)"
  rm -rf "$sizes"
  PYTHONDONTWRITEBYTECODE=1 "$python" "$here/export.py" --sizes "$sizes" >&2 || die "they could not be made: see the messages above"
  echo "$wanted" >"$sizes/.stamp"
fi

exec node "$here/bench.mjs" --sizes "$sizes" --model "$model" --onnx "$onnx" --litert "$litert" --npm "$work/npm/node_modules" "$@"
