"""Train and evaluate: `python train.py --help`."""

from fer.commands.frame import run

if __name__ == "__main__":
    run("train")
