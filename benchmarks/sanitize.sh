#!/bin/sh
# The four tools of compute-sanitizer over the kernels; one line of verdict each, logs in runs/sanitize/.
#
# Usage: benchmarks/sanitize.sh [python]     exit code: 0 if all are clean, 1 if not
#
# Samples of the ops that have kernels of their own, in two layouts and two dtypes: every kernel, in a minute or two per
# tool. Except for initcheck only our kernels are watched. That one must see who writes the memory that they read, so it
# watches all, and only what it says of ours counts.
cd "$(dirname "$0")/.." || exit 1
python=${1:-python3}
logs=runs/sanitize
select='forward_equals_reference and (contiguous or channels_last) and not offset and not batch0'
select="$select and not acb and not attention and not modulated"
select="(($select) or 1x520x9x10 or 1x520x10x8 or 2x34x66) and (float16 or float32) and not bfloat16"
mkdir -p "$logs"
# Without its cache torch gives every tensor memory of its own, so that an access beside a tensor is one beside memory.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1

failed=0
for tool in memcheck racecheck synccheck initcheck; do
  only='--kernel-name kns=mmif'
  [ $tool = initcheck ] && only=''
  # shellcheck disable=SC2086
  timeout "${SANITIZE_SECONDS:-150}" compute-sanitizer --tool $tool $only --error-exitcode 99 \
    "$python" -m pytest -q -x -p no:cacheprovider tests/cuda -k "$select" > "$logs/$tool.log" 2>&1
  code=$?
  ours=$(grep -c '=========     at .*mmif' "$logs/$tool.log")
  tests=$(grep -oE '[0-9]+ (passed|failed)' "$logs/$tool.log" | tail -1)
  case $tool:$code in
    *:0) verdict="clean, ${tests:-no test ran}"; [ -z "$tests" ] && failed=1 ;;
    initcheck:99)
      if [ "$ours" -eq 0 ]; then verdict="clean in our kernels, ${tests:-no test ran}"
      else verdict="ERRORS: $ours in our kernels"; failed=1; fi ;;
    *:99) verdict="ERRORS: $ours in our kernels"; failed=1 ;;
    *:124) verdict='out of time'; failed=1 ;;
    *:127) verdict='compute-sanitizer is not on PATH'; failed=1 ;;
    *) verdict="the tests failed (exit code $code)"; failed=1 ;;
  esac
  printf '%-10s %s  (%s)\n' $tool "$verdict" "$logs/$tool.log"
done
exit $failed
