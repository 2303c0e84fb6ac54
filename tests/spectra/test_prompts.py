"""What a model does not read to the end is said by us, once, and not by its libraries."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapt.sample import sample
from datasets_cache import encode
from spectra.models import load_pipeline
from spectra.probe import probe
from spectra.prompts import Cut, cut, quiet_cuts, warn_cut
from tests.adapt.small import finished, write_pictures
from tests.conftest import Command
from tests.tiny import tiny_sd, tiny_sd3, tokenizer

LONG = "abcdefghij klmnopqrst"
"""Twenty letters, a token each for the tiny tokenizer, which reads 16 with the marks at both ends."""
FITS = "abcdefghijklmn"


class T5Tokenizer:
    """A word a token, and one for the end."""

    model_max_length = 512

    def __call__(self, text: str, verbose: bool) -> dict[str, list[int]]:
        return {"input_ids": [0] * (len(text.split()) + 1)}


def with_t5(encoder: object, most: int) -> Any:
    """What `cut` looks at of an SD3 pipeline: CLIP and T5, which reads `most` tokens."""

    class Pipe(SimpleNamespace):
        def __call__(self, prompt: str, max_sequence_length: int = most) -> None: ...

    return Pipe(tokenizer=tokenizer(), text_encoder=1, tokenizer_3=T5Tokenizer(), text_encoder_3=encoder)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_a_text_that_just_fits_is_not_cut(make: Any) -> None:
    assert cut(make(), [FITS, FITS + "o", "", LONG]) == Cut(16, [1, 3])


def test_the_shortest_of_clip_tokenizers_counts() -> None:
    pipe = tiny_sd3()
    pipe.tokenizer_2 = tokenizer(length=12)
    assert cut(pipe, ["abcdefghij", FITS]) == Cut(12, [1])


def test_t5_reads_on_where_clip_stops() -> None:
    assert cut(with_t5(1, most=8), [LONG, "a " * 20]) == Cut(16, [1])
    assert cut(with_t5(1, most=77), [LONG, "a " * 20, "a " * 80]) == Cut(77, [2])
    assert cut(with_t5(None, most=77), [LONG]) == Cut(16, [0])  # its tokenizer alone reads nothing


def test_a_bundled_model_reads_24_tokens() -> None:
    with pytest.warns(UserWarning, match="cut") as said:
        warn_cut(load_pipeline("mini"), ["a circle", "a red circle " * 20], "prompt")
    # A collected connection of another test may warn meanwhile, of a ResourceWarning.
    assert [str(one.message) for one in said if one.category is UserWarning] == [
        "1 prompt is longer than the 24 tokens this model reads and is cut "
        "(first: 'a red circle a red circle a red circle a...')"
    ]


def test_nothing_is_said_where_nothing_is_cut() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_cut(tiny_sd(), [FITS, ""], "prompt")
        warn_cut(SimpleNamespace(), [LONG], "prompt")


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_libraries_are_silent_inside_and_speak_again_afterwards(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    with quiet_cuts():
        make()(LONG, num_inference_steps=1, output_type="latent")
        logging.getLogger("diffusers.test").warning("something else")
    assert [one.getMessage() for one in caplog.records] == ["something else"]
    make()(LONG, num_inference_steps=1, output_type="latent")
    assert "Token indices sequence length" in caplog.text
    assert "The following part of your input was truncated" in caplog.text


def told_once(said: pytest.WarningsRecorder) -> bool:
    """True where one warning speaks of prompts, whatever libraries warn of beside it."""
    return sum("longer than" in str(one.message) for one in said) == 1


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_a_probe_says_it_again_when_all_is_there(make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = make()
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"^1 prompt is longer than the 16 tokens .*first: 'abc") as said:
            probe(pipe, ["a", LONG, LONG], [0], 1, tmp_path / "c.zarr")
        assert told_once(said)
    assert caplog.records == []


def test_drawing_with_an_adapter_says_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = finished("lora").path
    caplog.clear()
    with pytest.warns(UserWarning, match="^2 prompts are longer than the 16 tokens .* are cut") as said:
        sample(run, [LONG, LONG + "x"], [0, 1], tmp_path / "out", steps=1)
    assert told_once(said)
    assert caplog.records == []


def test_captions_are_counted_whether_cached_or_not(
    tmp_path: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x").mkdir()
    for name in ("0.png", "1.png", "2.png"):
        (tmp_path / "x" / name).write_bytes((pictures / "train" / name).read_bytes())
        (tmp_path / "x" / name).with_suffix(".txt").write_text(LONG if name > "0.png" else "a")
    for _ in range(2):
        with pytest.warns(UserWarning, match="cut") as said:
            encode(tmp_path / "x", tiny_sd(), tmp_path / "cache")
        assert [str(one.message) for one in said if one.category is UserWarning] == [
            f"2 captions are longer than the 16 tokens this model reads and are cut (first: {tmp_path / 'x' / '1.txt'})"
        ]
    assert caplog.records == []


def test_a_command_says_it_in_one_line(command: Command, model: Path, tmp_path: Path) -> None:
    call = ("spectra", "probe", "--model", model, "--prompt", LONG, "--seeds", "0", "--steps", "1")
    for _ in range(2):
        done = command(*call, "--out", tmp_path / "c.zarr", "--json")
        assert done.code == 0
        assert done.err == (
            "spectra: 1 prompt is longer than the 16 tokens this model reads and is cut "
            "(first: 'abcdefghij klmnopqrst').\n"
        )


def test_training_says_once_what_is_wrong_with_both_folders(
    command: Command, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, part in enumerate(("train", "heldout")):
        folder = write_pictures(tmp_path / "data" / part, 2, seed=seed, size=(32, 32))
        (folder / "1.txt").write_text(LONG)
    short = ("steps=1", "eval_samples=1", "eval_levels=2", "sample_prompts=2", "sample_steps=1")
    call = ("adapt", "train", "--model", model, "--data", tmp_path / "data", "--method", "lora")
    for name in ("first", "second"):  # the second finds everything in the cache
        done = command(*call, "--out", tmp_path / name, *(word for one in short for word in ("--set", one)))
        assert done.code == 0, done.err
        assert [line for line in done.err.splitlines() if line.startswith("adapt:")] == [
            "adapt: 2 captions are longer than the 16 tokens this model reads and are cut "
            f"(first: {tmp_path / 'data' / 'train' / '1.txt'}).",
            "adapt: 4 pictures are smaller than 64 x 64 and are enlarged.",
        ]
    assert not [one for one in caplog.records if "truncated" in one.getMessage() or "Token" in one.getMessage()]
