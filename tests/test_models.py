"""Freezing, weights from a file, and refusal of files that are something else."""

import pickle

import pytest
import torch
from torchvision import models

from src.models import ARCHITECTURES, build_model
from src.train_utils import build_optimizer

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Intruder:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_stage_by_stage_equals_torchvision(arch):
    model = build_model(arch, num_classes=5).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), model.net(IMAGES))
    assert model(IMAGES).shape == (4, 5)


@pytest.mark.parametrize(
    ("arch", "unfreeze", "frozen", "trained"),
    [
        ("resnet50", "layer3", "layer2.", "layer3."),
        ("resnet50", "layer4", "layer3.", "layer4."),
        ("resnet50", "fc", "layer4.", "fc."),
        ("efficientnet_b1", 3, "features.5.", "features.6."),
        ("efficientnet_b1", 2, "features.6.", "features.7."),
        ("efficientnet_b1", 0, "features.8.", "classifier."),
    ],
)
def test_frozen_layers_and_their_batchnorm_buffers_stay_bit_identical(arch, unfreeze, frozen, trained):
    torch.manual_seed(0)
    model = build_model(arch, num_classes=3, unfreeze=unfreeze)
    before = {key: value.clone() for key, value in model.net.state_dict().items()}
    optimizer = build_optimizer(model, lr=1e-2, weight_decay=0.1)
    model.train()
    for _ in range(2):
        model(IMAGES).square().mean().backward()
        optimizer.step()
    after = model.net.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    names = list(before)
    first_trained = min(names.index(key) for key in names if key.startswith(trained))
    assert all(names.index(key) >= first_trained for key in changed)
    assert not any(key.startswith(frozen) for key in changed)
    assert any(key.startswith(trained) for key in changed)
    in_optimizer = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.net.named_parameters():
        trains = names.index(name) >= first_trained
        assert parameter.requires_grad == trains and (id(parameter) in in_optimizer) == trains


@pytest.mark.parametrize(("arch", "unfreeze"), [("resnet50", "all"), ("efficientnet_b1", 9)])
def test_everything_can_train(arch, unfreeze):
    model = build_model(arch, num_classes=3, unfreeze=unfreeze)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_weights_from_a_torchvision_state_dict(arch, tmp_path):
    torch.manual_seed(1)
    source = ARCHITECTURES[arch][0](weights=None)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    state = build_model(arch, num_classes=3, weights=str(tmp_path / "w.pt")).net.state_dict()
    for key, value in source.state_dict().items():
        assert key.startswith(("fc.", "classifier.")) or torch.equal(state[key], value), key


def test_weights_that_do_not_fit_or_are_no_state_dict_are_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(models.efficientnet_b1(weights=None).state_dict(), path)
    with pytest.raises(ValueError, match="another architecture"):
        build_model("resnet50", num_classes=3, weights=str(path))
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="no state dict"):
        build_model("resnet50", num_classes=3, weights=str(path))
    path.write_text("no checkpoint")
    with pytest.raises(ValueError, match="not a torchvision state dict"):
        build_model("resnet50", num_classes=3, weights=str(path))
    with pytest.raises(ValueError, match="no such file"):
        build_model("resnet50", num_classes=3, weights=str(tmp_path / "gone.pt"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps(Intruder(tmp_path / "intruder")))
    with pytest.raises(ValueError, match="not a torchvision state dict"):
        build_model("resnet50", num_classes=3, weights=str(path))
    assert not (tmp_path / "intruder").exists()


def test_a_failed_download_says_what_to_pass_instead(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ValueError, match=r"no network.*--weights FILE.*--weights none"):
        build_model("resnet50", num_classes=3, weights="imagenet")
