#!/bin/sh
# What Nsight Compute says of the hottest kernels: the generator's epilogue and up-layer filter, the encoder's attention and
# dilated paths.
#
# Usage: benchmarks/profile.sh [python]     writes runs/profile/<kernel>.ncu-rep and .txt
#
# The clocks stay as they are (--clock-control none), so that the numbers are those of the benchmarks.
cd "$(dirname "$0")/.." || exit 1
python=${1:-python3}
mkdir -p runs/profile
status=0
for kernel in epilogue_kernel fir_nhwc_kernel attention_forward paths_kernel; do
  report=runs/profile/$kernel
  ncu --profile-from-start off --clock-control none --set full --import-source on \
    --kernel-name "regex:$kernel" --launch-count 2 --force-overwrite --export "$report" \
    "$python" benchmarks/profile_target.py &&
    ncu --import "$report.ncu-rep" --page details > "$report.txt" || status=1
  grep -E 'Duration|DRAM Throughput|Memory Throughput|Achieved Occupancy|Registers Per' "$report.txt"
done
exit $status
