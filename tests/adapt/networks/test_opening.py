"""Names of networks: what `auto` means, what is not understood, what has to be installed."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from adapt.networks import open_networks
from adapt.networks.opening import resolve
from spectra.errors import UserError
from spectra.models import ZOO
from spectra.zoo import embedder
from tests.adapt.networks.towers import pictures


@pytest.mark.parametrize("model", ["mini", "mini-flow", ZOO / "mini", str(ZOO / "mini-flow") + "/"])
def test_auto_is_the_world_network_for_bundled_models(model: str | Path) -> None:
    assert resolve(["auto"], model=model, size=(64, 64)) == ["world"]


@pytest.mark.parametrize(
    ("model", "size"),
    [("mini", (128, 128)), ("mini", None), ("sdxl", (64, 64)), ("/x/mini", (64, 64)), (None, (64, 64))],
)
def test_auto_is_nothing_elsewhere(model: str | None, size: tuple[int, int] | None) -> None:
    assert resolve(["auto"], model=model, size=size) == []


def test_names_are_opened_once_and_in_order() -> None:
    asked = ["dino", "world", "auto", " clip=a/b", "clip=a/b", "inception"]
    want = ["dino=facebook/dinov2-base", "world", "clip=a/b", "inception"]
    assert resolve(asked, model="mini", size=(64, 64)) == want
    assert open_networks(["none"]) == [] == open_networks([])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["wrold"], "there is no feature network 'wrold'; did you mean \"world\"?"),
        (["fid"], "the names are auto, none, world, clip, dino, inception"),
        (["clip="], "give a folder or a hub id after the ="),
        (["world=x"], "write it without ="),
        (["none", "world"], 'the network name "none" stands alone, not beside world'),
    ],
)
def test_a_name_that_is_not_understood_is_one_sentence(names: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        open_networks(names)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_world_network_gives_the_bundled_features_and_says_what_it_is() -> None:
    (network,) = open_networks(["auto"], model="mini", size=(64, 64))
    images = pictures(5, 64, 64)
    np.testing.assert_allclose(network.pictures(images, batch=2), embedder.embed(images), atol=1e-5)
    pinned = json.loads(json.dumps(network.to_dict()))
    assert (pinned["name"], pinned["dims"], pinned["reads_text"]) == ("world", embedder.DIMS, False)
    assert not any(word in json.dumps(pinned).lower() for word in ("fid", "clip", "dino", "inception"))


def test_larger_pictures_are_resized_as_said() -> None:
    (network,) = open_networks(["world"])
    images = pictures(2, 128, 256)
    middle = np.stack([np.asarray(Image.fromarray(one).resize((128, 64), Image.Resampling.BICUBIC)) for one in images])
    np.testing.assert_allclose(network.pictures(images), embedder.embed(middle[:, :, 32:96]), atol=1e-5)
    assert "PIL bicubic, antialiased, shorter side to 64, centre crop 64 x 64" in network.resize


def test_the_world_networks_hash_follows_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = open_networks(["world"])[0].sha256
    assert open_networks(["world"])[0].sha256 == shipped
    changed = deepcopy(embedder.load())
    changed.head.weight.data[0, 0] += 1e-3
    monkeypatch.setattr(embedder, "load", lambda: changed)
    assert open_networks(["world"])[0].sha256 != shipped


@pytest.mark.parametrize("images", [np.zeros((2, 64, 64), np.uint8), np.zeros((2, 64, 64, 3), np.float32)])
def test_what_is_no_picture_is_one_sentence(images: np.ndarray) -> None:
    (network,) = open_networks(["world"])
    with pytest.raises(UserError, match=r"'world' sees pictures \(n, height, width, 3\) of uint8"):
        network.pictures(images)


def test_damaged_weights_do_not_give_features(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = embedder.Embedder().eval()
    broken.head.weight.data[:] = torch.nan
    monkeypatch.setattr(embedder, "load", lambda: broken)
    with pytest.raises(UserError, match="features that are not finite"):
        open_networks(["world"])[0].pictures(pictures(1, 64, 64))


def test_inception_without_torch_fidelity_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.image import fid

    monkeypatch.setattr(fid, "_TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(UserError, match="pip install torchmetrics torch-fidelity"):
        open_networks(["inception"])


def test_inception_without_torchmetrics_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(UserError, match="pip install torchmetrics torch-fidelity"):
        open_networks(["inception"])


class Witness(nn.Module):
    """In the place of torchmetrics' extractor: the features are the first pixels; keeps how it was made."""

    def __init__(self, **made: object) -> None:
        super().__init__()
        self.made, self.weight = made, nn.Parameter(torch.zeros(1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        assert (pixels.dtype, pixels.shape[1]) == (torch.uint8, 3)
        return pixels.reshape(len(pixels), -1)[:, :2048].float()


def test_inception_is_called_as_torchmetrics_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("torchmetrics.image.fid")
    stand_in.NoTrainInceptionV3 = Witness  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", stand_in)
    (network,) = open_networks(["inception"])
    images = pictures(3, 64, 64)
    want = images.transpose(0, 3, 1, 2).reshape(3, -1)[:, :2048]
    np.testing.assert_array_equal(network.pictures(images, batch=2), want)
    assert network.dims == 2048
    assert network.quantisation.endswith("stays float")
    assert "antialiased" in network.resize
