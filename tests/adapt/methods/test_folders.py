"""A run goes back onto the model that it was trained on, and onto no other."""

from __future__ import annotations

import pytest

from adapt.instruments import open_run
from adapt.methods import check_model, find_adapter, open_adapter
from spectra.errors import UserError
from spectra.models import load_pipeline, model_hash
from tests.adapt.small import finished, model

WORDS = r" was trained on '.*' \(hash [0-9a-f]{12}\), and '.*' is another model \(hash [0-9a-f]{12}\); give the model"


def test_runs_and_their_adapters_are_refused_by_another_model_in_the_same_words() -> None:
    run = finished("lora").path
    with pytest.raises(UserError, match=f"^the run {run}{WORDS}"):
        open_run(run, model=str(model("sd3")))
    with pytest.raises(UserError, match=f"^the adapter {run / 'adapter'}{WORDS}"):
        open_adapter(*find_adapter(run), str(model("sd3")))


def test_a_pipeline_that_is_given_is_not_moved_to_a_device() -> None:
    pipe = load_pipeline(model("sd"))
    with pytest.raises(UserError, match="a device is for models that are opened here; a pipeline has its own"):
        open_adapter(*find_adapter(finished("lora").path), None, pipe, "cpu")
    assert not hasattr(pipe.unet, "peft_config")


def test_the_model_is_known_by_its_hash_and_not_by_its_name() -> None:
    record = finished("lora").record
    check_model("it", record, "another name", model_hash(load_pipeline(model("sd"))))
    with pytest.raises(UserError, match=r"^it was trained on "):
        check_model("it", record, record["model"], "0" * 32)
