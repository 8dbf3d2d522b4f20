#!/usr/bin/env bash
# What only a GPU can show. It has not run on one yet: no number of it stands anywhere in this repository.
# Eight minutes at most; a trial without a GPU: tests/benchmarks/cuda.sh --shape tiny --device cpu
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD:$PWD/plugins${PYTHONPATH:+:$PYTHONPATH}"
exec timeout 480 "${PYTHON:-python}" tests/benchmarks/gpu.py "$@"
