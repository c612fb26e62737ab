"""`python -m fer.export`: reads and checks the command line. Torch is imported when all of it makes sense."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from fer.command_line import complain, did_you_mean, read_settings
from fer.errors import EXIT_CODE, UserError
from fer.export.settings import FORMATS, PRECISIONS, SUFFIXES, ExportConfig

HELP = """\
Turn a checkpoint into a file that runs without torch: raw faces in, probabilities out.

  python -m fer.export ckpt=RUN                                    RUN/checkpoints/best.onnx, for ONNX Runtime
  python -m fer.export ckpt=best.ckpt format=openvino precision=bf16
  python -m fer.export ckpt=best.ckpt precision=int8 data=data/fer2013.csv output=fer.onnx
  python infer.py mode=webcam ckpt=fer.onnx                        and there it goes

ckpt=       a checkpoint, or a run's folder
format=     onnx, or openvino (an .xml and a .bin file); left out, what output= ends in, else onnx
precision=  fp32 (the default), bf16 (openvino only: half the size, for processors that have it) or int8 (needs data=)
output=     the file to write; left out, beside the checkpoint
data=       labelled faces, as train.py's data.path takes them, or synthetic: the training rows calibrate int8, the
            validation rows compare accuracies; left out, the comparison is on drawn faces
force=      true: keep a file that disagrees with the checkpoint (false)
"""


def main() -> None:
    """Exports, or says what is wrong and exits with code 2."""
    words = sys.argv[1:]
    if {"-h", "--help", "help"} & set(words):
        print(HELP, end="")
        return
    try:
        config = parse(words)
        from fer.export.run import export

        export(config)
    except UserError as error:
        complain(str(error).splitlines())
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)


def parse(words: Sequence[str]) -> ExportConfig:
    """The settings of a command line.

    Raises:
        UserError: every mistake in a line each.
    """
    given, found = read_settings(words, [field.name for field in fields(ExportConfig)])
    found += _choice("precision", given, PRECISIONS)
    found += _choice("format", given, FORMATS)
    found += _choice("force", given, ("true", "false"))
    suffix = Path(given.get("output", "")).suffix.lower()
    formats = {SUFFIXES[name]: name for name in FORMATS}
    format_ = given.get("format") or formats.get(suffix, FORMATS[0])
    if "ckpt" not in given:
        found.append("ckpt is missing: give the .ckpt file, or the folder of a run, to export")
    if "output" in given and format_ in FORMATS and suffix != SUFFIXES[format_]:
        found.append(f"output={given['output']}: the file of format={format_} ends in {SUFFIXES[format_]}")
    precision = given.get("precision", PRECISIONS[0])
    if precision == "bf16" and format_ == "onnx":
        found.append("precision=bf16 is for format=openvino: ONNX Runtime has no bfloat16 convolutions on processors")
    if precision == "int8" and "data" not in given:
        found.append("precision=int8 needs data=PATH: the ranges of 8-bit numbers are measured on training rows")
    if found:
        raise UserError("\n".join(found))
    return ExportConfig(
        ckpt=given["ckpt"],
        format=format_,
        precision=precision,
        output=given.get("output"),
        data=given.get("data"),
        force=given.get("force") == "true",
    )


def _choice(key: str, given: dict[str, str], values: Sequence[str]) -> list[str]:
    value = given.get(key, values[0])
    return [] if value in values else [f"{key}={value}: there is {', '.join(values)}{did_you_mean(value, values)}"]


if __name__ == "__main__":
    main()
