from pathlib import Path

import pytest
import torch
from PIL import Image

from editr1.build import load_dataset, locate, pick_device
from editr1.config import DataConfig
from editr1.data import JsonlDataset
from editr1.errors import UserError
from editr1.toy.world import ToyDataset


def test_a_config_names_its_dataset(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "data.jsonl").write_text('{"source": "a.png", "instruction": "go"}')
    assert isinstance(load_dataset(DataConfig(path=tmp_path)), JsonlDataset)
    toy = load_dataset(DataConfig(kind="toy", split="heldout", size=7, seed=3))
    assert isinstance(toy, ToyDataset)
    assert (toy.split, len(toy), toy.seed) == ("heldout", 7, 3)


def test_only_shipped_names_are_looked_up() -> None:
    assert locate("black-forest-labs/FLUX.1-Kontext-dev") == "black-forest-labs/FLUX.1-Kontext-dev"
    with pytest.raises(UserError, match="nothing"):
        locate("toy:nothing")


def test_devices_that_are_not_there_are_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match=r"editor\.device='gpu' is no device"):
        pick_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="there is no GPU here"):
        pick_device("cuda:1")
