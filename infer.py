"""See emotions in a camera's picture, videos and photos: `python infer.py --help`. Checks the settings, and runs."""

import re
import sys
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from fer.command_line import complain
from fer.config import checked_arguments
from fer.errors import EXIT_CODE, UserError
from fer.inference.config import InferConfig, mistakes

CONFIGS = Path(__file__).parent / "configs"
PATHS = ("source", "output", "ckpt", "detector.path")


@hydra.main(version_base="1.3", config_path="configs", config_name="infer")
def main(cfg: DictConfig) -> None:
    """One camera, one video, or any number of pictures."""
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, InferConfig)
    try:
        found = mistakes(config)
        if found:
            raise UserError("\n".join(found))
        from fer.inference.run import run

        run(config)
    except UserError as error:
        complain(str(error).splitlines())
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        print("interrupted; what was written is whole up to here", file=sys.stderr)
        sys.exit(130)


def quoted(word: str) -> str:
    """KEY=PATH with the path in quotes, so that Hydra takes a space, a comma, a `=` or a bracket in it as it is."""
    key, equals, path = word.partition("=")
    if key not in PATHS or path in ("", "null") or path[0] in "'\"":
        return word
    path = re.sub(r"(\\*)'", r"\1\1\\'", path)
    path = re.sub(r"(\\+)$", r"\1\1", path)
    return f"{key}{equals}'{path}'"


if __name__ == "__main__":
    if {"-m", "--multirun"} & set(sys.argv):
        complain(["infer.py does one thing at a time, without -m; mode=image takes folders and globs of pictures"])
        sys.exit(EXIT_CODE)
    ConfigStore.instance().store("infer_schema", InferConfig)
    sys.argv[1:] = checked_arguments(CONFIGS, "infer", [quoted(word) for word in sys.argv[1:]])
    main()
