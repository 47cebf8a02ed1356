#!/usr/bin/env bash
# Proves flatnce on a GPU and measures it against PyTorch there, in nine minutes.
#
#   ./scripts/prove_gpu.sh --out DIR [--device D] [--binary FILE [--measure FILE]] [--python FILE] [--only S,...]
#       [--skip S,...] [--minutes N] [--json FILE] [--keep DIR] [--smoke] [--help]
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. scripts/setup/common.sh

# The options are read by the interpreter that is to run it all.
script=bench failure=2 asked="" before=""
for word in "$@"; do
    [[ $before != --python ]] || asked=$word
    [[ $word != --python=* ]] || asked=${word#*=}
    before=$word
done
[[ -z $asked || (-f $asked && -x $asked) ]] || fail "--python $asked: no such program."
[[ -n $asked || -x $python ]] || asked=$(command -v python3) || fail "python3 is not there." "--python FILE"
exec "${asked:-$python}" scripts/bench/gpu/main.py "$@"
