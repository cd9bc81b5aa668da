#!/usr/bin/env bash
# Everything a CUDA machine must show, in one call of under ten minutes and without a network:
#
#   WHEELS=folder-of-wheels DATA=clip.data OUT=folder benchmarks/gpu.sh
#
# WHEELS  wheels of requirements.txt and tests/requirements.txt (`pip download -r ... -d wheels`), a CUDA build of
#         PyTorch among them unless the machine's Python has one; empty: install nothing, take the Python at hand.
# DATA    a prepared clip at 512 (`python -m talker prepare CLIP --out clip.data --size 512`); empty: no training.
# OUT     where the results go. The built kernels of gsplat go to OUT/extensions; a later call with
#         EXTENSIONS=that-folder takes them instead of compiling for minutes.
#
# A step that fails is reported in OUT/steps.txt and the next one runs all the same.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=$(realpath -m "${OUT:-gpu-results}")
mkdir -p "$OUT"
: >"$OUT/steps.txt"

python=${PYTHON:-python3}
if [ -n "${WHEELS:-}" ]; then
  "$python" -m venv --system-site-packages .venv-gpu
  python=$PWD/.venv-gpu/bin/python
  "$python" -m pip install -q --no-index --find-links "$WHEELS" -r requirements.txt -r tests/requirements.txt
fi
export TALKER_DEVICE=cuda TORCH_EXTENSIONS_DIR="${EXTENSIONS:-$OUT/extensions}" MAX_JOBS=${MAX_JOBS:-8}
# For this machine's GPU alone: all architectures take many times as long.
TORCH_CUDA_ARCH_LIST=$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())' 2>/dev/null) || {
  echo "PyTorch finds no CUDA device here; nothing was run." >&2
  exit 1
}
export TORCH_CUDA_ARCH_LIST
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$OUT/gpu.txt"

step() { # NAME SECONDS COMMAND...: its output goes to OUT/NAME.log
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  timeout "$limit" "$@" >"$OUT/$name.log" 2>&1 || status=$?
  printf '%-10s exit %-3d %4d s\n' "$name" "$status" $((SECONDS - start)) | tee -a "$OUT/steps.txt"
  [ "$status" -eq 0 ] || tail -n 15 "$OUT/$name.log"
  return "$status"
}

if step build 300 "$python" -c 'from talker.device import chosen_device; print(chosen_device())'; then
  step golden 60 "$python" -m tests.golden.make_render_goldens && cp tests/golden/render_*.npz "$OUT/"
  step parity 90 "$python" -m pytest -q tests/test_render_gsplat.py tests/test_captured.py tests/test_device.py
  if [ -n "${DATA:-}" ]; then
    step steps 60 "$python" -m talker bench train --data "$DATA" --seconds 20 --json "$OUT/bench_train.json"
    step train 240 "$python" -m talker train "$DATA" --out "$OUT/avatar" --preset preview \
      --consent "The person shown agrees." && AVATAR=$OUT/avatar
    [ -f "$OUT/avatar/training.json" ] && cp "$OUT/avatar/training.json" "$OUT/"
  fi
  if [ -n "${AVATAR:-}" ]; then
    step render 60 "$python" -m talker bench render --avatar "$AVATAR" --json "$OUT/bench_render.json"
    step drive 60 "$python" -m talker bench drive --avatar "$AVATAR" --seconds 20 --json "$OUT/bench_drive.json"
  fi
fi
cat "$OUT/steps.txt"
! grep -qv 'exit 0 ' "$OUT/steps.txt"
