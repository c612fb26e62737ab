"""What a checkpoint of another project does not say itself, for the commands that take one."""

from fer.settings.base import Real, Settings, Whole, setting


class ForeignSettings(Settings):
    """What a checkpoint of another project does not say itself (`fer.checkpoint.ForeignSpec`)."""

    name: str | None = setting(
        None,
        "what a checkpoint of another project holds: a network of timm, package.module:Class, or one of ours",
    )
    image_size: Whole = setting(48, "of such a checkpoint: pixels per side of its faces", ge=16, le=1024)
    channels: Whole = setting(1, "of such a checkpoint: how many it takes; the gray face is in each", ge=1, le=3)
    mean: Real | list[Real] = setting(0.0, "of such a checkpoint: subtracted from pixels in [0, 1]; [a,b,c] by channel")
    std: Real | list[Real] = setting(1.0, "of such a checkpoint: what pixels are divided by then; [a,b,c] by channel")
