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

# Trains, or goes on with, the run NAME; the other words are settings.
trained() {
    run=$out/$1
    shift
    if [ -e "$run/metrics.json" ]; then
        return
    elif [ -e "$run/checkpoints/last.ckpt" ]; then
        python train.py "ckpt=$run/checkpoints/last.ckpt"
    else
        python train.py compile=true "data.path=$data" "data.ferplus_path=$votes" "hydra.run.dir=$run" "$@"
    fi
}

# Two teachers, and a student that begins from the first. (Of the packaged student the second teacher was a network of
# the same recipe that a plain loop trained on a GPU; see docs/results.md.) The weights are those of the last epoch: they
# are averaged and the learning rate has come down to 0, so that none has to be chosen.
trained best_7_seed_0 experiment=best_7 seed=0
trained best_7_seed_1 experiment=best_7 seed=1
first=$out/best_7_seed_0/checkpoints/last.ckpt
trained distilled_7 experiment=distilled_7 seed=1 "model.weights=$first" \
    "teacher=[$first,$out/best_7_seed_1/checkpoints/last.ckpt]"
python -m fer.commands.export "ckpt=$out/distilled_7/checkpoints/last.ckpt" format=ckpt "data=$data" \
    output=fer/weights/senet_7.ckpt

# Four classes: the network goes on as a student on their rows. Else its answers are restricted to a subset's classes
# (docs/lessons.md).
trained best_4 experiment=best_4 seed=0 test_split=val model.weights=fer/weights/senet_7.ckpt \
    "teacher=[fer/weights/senet_7.ckpt,$out/best_7_seed_1/checkpoints/last.ckpt]"
python -m fer.commands.export "ckpt=$out/best_4/checkpoints/last.ckpt" format=ckpt "data=$data" \
    output=fer/weights/senet_4.ckpt
for subset in 5 5-surprise; do
    python -m fer.commands.export ckpt=fer/weights/senet_7.ckpt format=ckpt "classes=$subset" "data=$data" \
        "output=fer/weights/senet_$subset.ckpt"
done

for subset in 7 4 5 5-surprise; do
    for tta in none flip; do
        report=$out/report_${subset}_$tta
        rm -rf "$report"
        robustness=()
        [ "$tta" = flip ] || robustness=(robustness=true robustness_faces=1000)
        python train.py mode=test "ckpt=fer/weights/senet_$subset.ckpt" "data.path=$data" test_split=val \
            trainer.precision=32-true "tta=$tta" "${robustness[@]}" "hydra.run.dir=$report"
    done
    cp "$out/report_${subset}_none/metrics.json" "tests/weights/senet_$subset.json"
    python -m fer.commands.card "$out/report_${subset}_none" "output=fer/weights/senet_$subset.md"
done
