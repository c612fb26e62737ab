"""See emotions in a camera's picture, videos and photos: `python infer.py --help`."""

from fer.commands.frame import run

if __name__ == "__main__":
    run("infer")
