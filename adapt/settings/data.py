"""Which pictures are learned, with which captions, and at which size."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapt.settings.base import Count, NonNegative, PathLike, Settings, Source


class DataSettings(Settings):
    """Where the data come from and how they become latents."""

    data: Source = Field(
        description="folder of captioned pictures (or one with `train` and `heldout` inside), parquet or tar files "
        "(wildcards allowed), or the name of a data set of the Hugging Face hub"
    )
    heldout: Source | None = Field(
        None, description="captioned pictures to measure on; default: beside or out of `data`"
    )
    split: str = Field("train", description="split of a hub data set")
    image_column: str = Field("image", description="column with the pictures, for parquet, tar and hub data")
    caption_column: str = Field("text", description="column with the captions, for parquet, tar and hub data")
    caption_choice: Literal["first", "random"] = Field(
        "random", description="which caption of a picture with several is used in a step"
    )
    default_caption: str | None = Field(
        None, description="caption of pictures that have none, such as 'a photo of sks dog'"
    )
    resolution: int | None = Field(
        None, ge=8, description="side of the training pictures, pixels; default: the model's"
    )
    buckets: bool = Field(False, description="keep aspect ratios: group pictures by shape instead of cropping squares")
    bucket_step: Count = Field(64, description="sides of bucketed pictures are multiples of so many pixels")
    smallest: Count = Field(1, description="pictures with a side of fewer pixels are bad pictures")
    skip_bad: bool = Field(False, description="leave damaged and too small pictures out instead of stopping")
    frames: Count = Field(1, description="pixel frames of each clip, for video models")

    class_data: Source | None = Field(
        None, description="pictures of the class that a subject belongs to, for prior preservation (DreamBooth)"
    )
    class_caption: str | None = Field(
        None,
        min_length=1,
        description="caption of class pictures, which the base model draws if class_data is not given",
    )
    class_count: Count = Field(64, description="class pictures to draw")
    class_weight: NonNegative = Field(1.0, description="weight of the class pictures' loss")

    cache: PathLike | None = Field(None, description="folder of the encoding cache; default: the user's")
