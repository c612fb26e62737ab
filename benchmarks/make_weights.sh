#!/usr/bin/env bash
# From FER2013's rows to all checkpoints of fer/weights/ and their cards, by the commands that anybody would type.
#
#     bash benchmarks/make_weights.sh data/fer2013.csv data/fer2013new.csv [outputs/weights]
#
# The training takes hours on a CPU; started again, the script goes on where it was interrupted. Training rows train;
# PublicTest rows fit temperatures and minimum confidences. PrivateTest is not looked at.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$1 votes=$2 out=${3:-outputs/weights}
subsets=(4 5 5-surprise)

run=$out/best_7
if [ ! -e "$run/metrics.json" ]; then
    if [ -e "$run/checkpoints/last.ckpt" ]; then
        python train.py "ckpt=$run/checkpoints/last.ckpt"
    else
        python train.py experiment=best_7 compile=true "data.path=$data" "data.ferplus_path=$votes" "hydra.run.dir=$run"
    fi
fi
# The last epoch's weights: they are averaged and the learning rate has come down to 0, so that none has to be chosen.
python -m fer.commands.export "ckpt=$run/checkpoints/last.ckpt" format=ckpt "data=$data" output=fer/weights/senet_7.ckpt

# The answers restricted to a subset's classes: training on the subset's rows did not help (docs/results.md).
for subset in "${subsets[@]}"; do
    python -m fer.commands.export ckpt=fer/weights/senet_7.ckpt format=ckpt "classes=$subset" "data=$data" \
        "output=fer/weights/senet_$subset.ckpt"
done

for subset in 7 "${subsets[@]}"; do
    for tta in none flip; do
        report=$out/report_${subset}_$tta
        rm -rf "$report"
        robustness=()
        [ "$tta" = flip ] || robustness=(robustness=true robustness_faces=1000)
        python train.py mode=test "ckpt=fer/weights/senet_$subset.ckpt" "data.path=$data" test_split=val \
            "tta=$tta" "${robustness[@]}" "hydra.run.dir=$report"
    done
    cp "$out/report_${subset}_none/metrics.json" "tests/weights/senet_$subset.json"
    python -m fer.commands.card "$out/report_${subset}_none" "output=fer/weights/senet_$subset.md"
done
