"""Loss, pos_weight, optimizer groups, checkpoints and the early-stopping counter."""

import contextlib
import math
import pickle
import resource
import signal
import types

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from src.checkpoint import load_best, load_checkpoint, save_checkpoint
from src.early_stopping import EarlyStopping
from src.labels.policy import LabelPolicy
from src.models import build_model
from src.train_utils import (
    MaskedLoss,
    bfloat16_is_faster,
    build_optimizer,
    class_pos_weight,
    hard_weights,
    masked_bce,
    pick_device,
    scaled_lr,
)
from tests.test_models import Intruder
from tests.trees import FORK

CLASSES = ("A", "B")
LABELS = np.array([[1.0, 0.0], [-1.0, np.nan], [0.0, -1.0], [np.nan, 1.0]])
LOGITS = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.2], [0.1, -0.4]])


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.mark.parametrize("uncertain", ["mask", "0", "1", "0.6"])
@pytest.mark.parametrize("missing", ["mask", "0", "0.25"])
def test_loss_by_hand_for_every_policy(uncertain, missing):
    targets, mask = LabelPolicy.parse(uncertain=[uncertain], missing=[missing], classes=CLASSES).apply(LABELS)
    weight = [3.0, 0.5]
    loss = masked_bce(
        LOGITS,
        targets=torch.from_numpy(targets),
        mask=torch.from_numpy(mask),
        pos_weight=torch.tensor(weight),
    )
    total, count = 0.0, 0
    for row in range(4):
        for column in range(2):
            label = LABELS[row, column]
            word = missing if np.isnan(label) else uncertain if label == -1 else str(label)
            if word != "mask":
                z, y = float(LOGITS[row, column]), float(word)
                total += weight[column] * y * softplus(-z) + (1 - y) * softplus(z)
                count += 1
    assert loss.item() == pytest.approx(total / count, rel=1e-6)


def test_loss_without_weights_is_scikit_learns_log_loss():
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    loss = masked_bce(LOGITS, targets=targets, mask=torch.ones(4, 2, dtype=torch.bool), pos_weight=torch.ones(2))
    assert loss.item() == pytest.approx(log_loss(targets.flatten(), LOGITS.sigmoid().flatten()), rel=1e-6)


def test_masked_entries_get_no_gradient_and_an_empty_batch_costs_nothing():
    logits = torch.tensor([[1.0, float("nan")]], requires_grad=True)
    mask = torch.tensor([[True, False]])
    loss = masked_bce(logits, targets=torch.zeros(1, 2), mask=mask, pos_weight=torch.ones(2))
    assert torch.isfinite(loss)
    clean = LOGITS.clone().requires_grad_()
    loss = masked_bce(clean, targets=torch.zeros(4, 2), mask=torch.zeros(4, 2, dtype=bool), pos_weight=torch.ones(2))
    loss.backward()
    assert loss.item() == 0 and not clean.grad.any()


FOCUSES = [((0.0, 0.0), 0.0), ((2.0, 2.0), 0.0), ((0.0, 4.0), 0.05), ((1.0, 0.5), 0.2), ((0.5, 3.0), 0.0)]


@pytest.mark.parametrize(("gamma", "margin"), FOCUSES)
def test_the_loss_and_its_gradient_are_those_of_the_plain_formula(gamma, margin):
    """Soft targets, a masked entry, and the weights of both kinds, in float64 and by autograd."""
    targets = torch.tensor([[1.0, 0.0], [0.3, 1.0], [0.0, 0.6], [1.0, 0.0]])
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 1]], dtype=torch.bool)
    loss = MaskedLoss(torch.tensor([3.0, 0.5]), torch.tensor([0.25, 2.0]), gamma, margin)
    logits, plain = LOGITS.clone().requires_grad_(), LOGITS.double().requires_grad_()
    p = 1 / (1 + torch.exp(-plain))
    q = torch.clamp(p - margin, min=0)
    y, w, c = targets.double(), loss.pos_weight.double(), loss.class_weight.double()
    costs = -c * (w * y * (1 - p) ** gamma[0] * torch.log(p) + (1 - y) * q ** gamma[1] * torch.log(1 - q))
    found = loss.mean(logits, targets=targets, mask=mask)
    found.backward()
    costs[mask].mean().backward()
    assert found.item() == pytest.approx(costs[mask].mean().item(), rel=1e-5)
    torch.testing.assert_close(logits.grad, plain.grad.float(), rtol=1e-4, atol=1e-7)


def test_the_loss_by_hand():
    """Positive at p = 0.8, negative at 0.2. Focal: 0.2^2 * -log 0.8 each; asymmetric: -log 0.8, 0.15^4 * -log 0.85."""
    logits = torch.tensor([[math.log(4.0), -math.log(4.0)]])
    targets, mask, ones = torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool), torch.ones(2)
    focal = MaskedLoss(ones, ones, gamma=(2.0, 2.0)).entries(logits, targets=targets, mask=mask)
    torch.testing.assert_close(focal, torch.tensor([[0.0089257, 0.0089257]]), atol=1e-6, rtol=0)
    asymmetric = MaskedLoss(ones, ones, gamma=(0.0, 4.0), margin=0.05).entries(logits, targets=targets, mask=mask)
    torch.testing.assert_close(asymmetric, torch.tensor([[0.2231436, 0.0000823]]), atol=1e-6, rtol=0)


def test_the_focal_loss_is_torchvisions_and_at_neutral_exponents_the_bce():
    targets, mask, ones = (LOGITS > 0.2).float(), torch.ones(4, 2, dtype=torch.bool), torch.ones(2)
    focal = MaskedLoss(ones, ones, gamma=(2.0, 2.0)).mean(LOGITS, targets=targets, mask=mask)
    assert focal.item() == pytest.approx(sigmoid_focal_loss(LOGITS, targets, alpha=-1, reduction="mean").item())
    neutral = MaskedLoss(ones, ones)
    bce = nn.functional.binary_cross_entropy_with_logits(LOGITS, targets, reduction="none")
    torch.testing.assert_close(neutral._focused(LOGITS, targets, ones), bce)
    assert torch.equal(neutral.entries(LOGITS, targets=targets, mask=mask), bce)


@pytest.mark.parametrize(("gamma", "margin"), FOCUSES)
def test_extreme_logits_have_a_finite_loss_and_gradient(gamma, margin):
    logits = torch.tensor([[-300.0, 300.0], [300.0, -300.0], [-3.0, 0.0]], requires_grad=True)
    loss = MaskedLoss(torch.ones(2), torch.ones(2), gamma, margin)
    mean = loss.mean(logits, targets=torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), mask=torch.ones(3, 2) > 0)
    mean.backward()
    assert mean.isfinite() and logits.grad.isfinite().all()


def test_hard_weights_pick_the_highest_and_share_ties():
    costs = torch.tensor([[3.0, 1.0], [2.0, 2.0]])
    of_all = torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0, 0.0])
    for count, expected in ((1, [0, 0, 0, 0]), (2, [1, 0, 0, 0]), (3, [1, 0, 0.5, 0.5]), (4, [1, 0, 1, 1])):
        assert hard_weights(costs, among=of_all, count=count).flatten().tolist() == expected


def test_pos_weight_is_negatives_over_positives_of_the_valid_labels():
    targets = np.array([[1, 0, 0.5], [0, 0, 0.5], [0, 1, 0], [0, 1, 0]], np.float32)
    mask = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1]], bool)
    np.testing.assert_allclose(class_pos_weight(targets, mask=mask, classes="ABC"), [2, 1, 3])
    np.testing.assert_allclose(class_pos_weight(targets, mask=mask, classes="ABC", limit=2.5), [2, 1, 2.5])
    np.testing.assert_allclose(class_pos_weight(1 - targets, mask=mask, classes="ABC", limit=2.5), [0.5, 1, 0.4])


def test_a_class_with_one_label_only_gets_weight_1_and_a_warning():
    targets = np.array([[1, 0, 0], [1, 0, 1]], np.float32)
    mask = np.array([[True, True, True], [True, True, True]])
    with pytest.warns(UserWarning, match="label for A, B: pos_weight 1"):
        np.testing.assert_array_equal(class_pos_weight(targets, mask=mask, classes="ABC"), [1, 1, 1])


def test_norms_and_biases_are_not_decayed():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    decayed, plain = build_optimizer(model, lr=1e-3, weight_decay=0.1).param_groups
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[2].weight)}
    assert len(plain["params"]) == 4


def test_the_head_has_a_learning_rate_of_its_own():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    optimizer = build_optimizer(model, lr=1e-3, weight_decay=0.1, head=list(model[2].parameters()), head_lr_factor=10)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    expected = {model[1].weight: (1e-3, 0), model[1].bias: (1e-3, 0), model[2].weight: (1e-2, 0.1)}
    assert rates == {id(p): pair for p, pair in (expected | {model[2].bias: (1e-2, 0)}).items()}
    with scaled_lr(optimizer, 0.25):
        assert [group["lr"] for group in optimizer.param_groups] == [2.5e-4, 2.5e-3, 2.5e-3]
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-2, 1e-2]


def test_the_head_of_a_model_is_its_classifier():
    for arch, name in (("resnet50", "fc"), ("efficientnet_b1", "classifier")):
        model = build_model(arch, num_classes=2)
        assert {id(p) for p in model.head()} == {id(p) for p in getattr(model.net, name).parameters()}


def test_a_checkpoint_that_would_run_code_or_is_damaged_is_refused(tmp_path):
    path = tmp_path / "resnet50" / "best.pt"
    with pytest.raises(ValueError, match=r"does not exist; run train_resnet\.py first"):
        load_checkpoint(path)
    save_checkpoint(path, {"model": {"w": torch.ones(3)}, "classes": ["A"], "score": 0.5})
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.ones(3))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is corrupt"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Intruder(tmp_path / "intruder")))
    with pytest.raises(ValueError, match="is corrupt, or not written by this program"):
        load_checkpoint(path)
    assert not (tmp_path / "intruder").exists()


def best(**changed):
    """What best.pt holds, of a ResNet50 for one class."""
    state = {"arch": "resnet50", "classes": ["A"], "image_size": 32, "manifest_sha256": "0", "pos_weight": [1.0]}
    return state | {"model": build_model("resnet50", num_classes=1).net.state_dict()} | changed


def test_a_best_checkpoint_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "resnet50" / "best.pt"
    whole = best()
    light = whole | {"model": {}}  # which is written faster, where the weights do not matter
    lacking = [({k: v for k, v in light.items() if k != key}, f"has no '{key}'") for key in light if key != "arch"]
    weights = {key: value for key, value in whole["model"].items() if key != "conv1.weight"}
    for state, match in (
        (torch.ones(3), "holds a Tensor; expected a checkpoint"),
        ([1, 2], "holds a list; expected a checkpoint"),
        ({"arch": "efficientnet_b1"}, "is a checkpoint of efficientnet_b1; expected resnet50"),
        *lacking,
        (whole | {"model": weights}, r"does not hold the weights of resnet50 .*conv1\.weight"),
        (whole | {"model": [1]}, "does not hold the weights of resnet50"),
        (whole | {"classes": ["A", "B"]}, "does not hold the weights of resnet50"),
    ):
        save_checkpoint(path, state)
        with pytest.raises(ValueError, match=match):
            load_best(path.parent, arch="resnet50")
    save_checkpoint(path, whole)
    model, found = load_best(path.parent, arch="resnet50")
    assert torch.equal(model.net.conv1.weight, whole["model"]["conv1.weight"]) and found["classes"] == ["A"]
    assert not model.training and all(parameter.requires_grad for parameter in model.parameters())


def test_a_half_precision_checkpoint_loads_as_float32(tmp_path):
    state = best()
    state["model"] = {
        key: value.half() if value.is_floating_point() else value for key, value in state["model"].items()
    }
    save_checkpoint(tmp_path / "best.pt", state)
    model, _ = load_best(tmp_path, arch="resnet50")
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
    assert torch.equal(model.net.conv1.weight, state["model"]["conv1.weight"].float())


def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"w": torch.ones(3)})

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
        with pytest.raises(ValueError, match="last.pt cannot be written .the file would be larger than.*--resume"):
            save_checkpoint(path, {"w": torch.ones(100000)})

    process = FORK.Process(target=fill)  # the limit cannot be taken back
    process.start()
    process.join()
    assert process.exitcode == 0
    assert torch.equal(load_checkpoint(path)["w"], torch.ones(3)) and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=f"--device {name} cannot be used"):
        pick_device(name)


def test_early_stopping_counts_epochs_without_a_better_score():
    stopping = EarlyStopping(patience=2)
    assert [stopping.step(s) for s in (0.5, 0.5, 0.6, math.nan)] == [True, False, True, False]
    assert (stopping.best, stopping.waited, stopping.should_stop) == (0.6, 1, False)
    again = EarlyStopping(patience=2)
    again.load_state_dict(stopping.state_dict())
    assert not again.step(0.6) and again.should_stop


def test_without_any_score_the_latest_epoch_is_the_one_to_keep():
    stopping = EarlyStopping(patience=3)
    assert [stopping.step(s) for s in (math.nan, math.nan, 0.1, math.nan)] == [True, True, True, False]


def test_a_device_that_computes_nothing_is_refused():
    with pytest.raises(ValueError, match="--device meta computes nothing"):
        pick_device("meta")


@pytest.mark.parametrize(
    ("arch", "device", "capabilities", "expected"),
    [
        ("resnet50", "cpu", {"avx512_bf16": True, "amx_bf16": False}, True),
        ("resnet50", "cpu", {"amx_bf16": True}, True),
        ("resnet50", "cpu", {"avx512_f": True, "avx512_bf16": False}, False),
        ("resnet50", "cpu", {}, False),
        ("efficientnet_b1", "cpu", {"avx512_bf16": True}, False),
        ("resnet50", "mps", {"avx512_bf16": True}, False),
    ],
)
def test_bfloat16_is_the_default_where_it_is_faster(arch, device, capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert bfloat16_is_faster(arch, torch.device(device)) is expected


@pytest.mark.parametrize(("major", "expected"), [(7, False), (8, True), (9, True)])
@pytest.mark.parametrize("arch", ["resnet50", "efficientnet_b1"])
def test_bfloat16_is_the_default_on_a_gpu_that_does_not_emulate_it(arch, major, expected, monkeypatch):
    """Each GPU is asked for itself: here the second one, while the first is the current one."""
    capabilities, current = [8 if major == 7 else 7, major], [0]

    @contextlib.contextmanager
    def selected(device):
        current.append(device.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", selected)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True, raising=False)  # emulation
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    properties = types.SimpleNamespace
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties(major=capabilities[device]))
    assert bfloat16_is_faster(arch, torch.device("cuda", 1)) is expected
