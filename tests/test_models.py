"""Freezing, the folded copy, compiling, weights from a file, and refusal of files that are something else."""

import copy
import math
import pickle
import shutil
import warnings
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.autograd import gradcheck

from src.checkpoint import load_best, save_checkpoint
from src.images.heatmaps import METHODS, class_heat
from src.models import ARCHITECTURES, ATTENTION, CBAMAttention, ChestNet, SEAttention, build_model, compile_for_training
from src.train_utils import build_optimizer

WHOLE_NETWORKS = True

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Intruder:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def warmed(arch, *, seed=0, **options):
    """A model whose BatchNorms have statistics and weights other than the initial 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = build_model(arch, num_classes=5, **options)
    with torch.no_grad():
        for module in model.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.running_mean, module.bias):
                    values.copy_(0.2 * torch.randn(values.shape, generator=generator))
                for values in (module.running_var, module.weight):
                    values.copy_(0.5 + torch.rand(values.shape, generator=generator))
    return model


def tiny_model():
    """Two stages of a convolution, a BatchNorm and an activation, the first one frozen, and a classifier."""
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    second = [nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.SiLU(inplace=True)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2)]
    return ChestNet(nn.Sequential(*first, *second, *head), [first, second, head], 1)


def assert_equal_to_rounding(actual, expected, rounding=1e-5):
    __tracebackhide__ = True
    assert (actual - expected).abs().max() <= rounding * expected.abs().max()


def gradients(model):
    return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize(("arch", "attention"), [*((arch, "none") for arch in ARCHITECTURES), ("resnet50", "cbam")])
def test_stage_by_stage_equals_torchvision(arch, attention):
    model = build_model(arch, num_classes=5, attention=attention).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), model.net(IMAGES))
    assert model(IMAGES).shape == (4, 5)


@pytest.mark.parametrize(
    ("arch", "unfreeze", "frozen", "trained", "attention"),
    [
        ("resnet50", "layer3", "layer2.", "layer3.", "none"),
        ("resnet50", "layer4", "layer3.", "layer4.", "none"),
        ("resnet50", "fc", "layer4.", "fc.", "none"),
        ("resnet50", "fc", "layer4.", "avgpool.attention.", "se"),
        ("efficientnet_b1", 3, "features.5.", "features.6.", "none"),
        ("efficientnet_b1", 2, "features.6.", "features.7.", "none"),
        ("efficientnet_b1", 0, "features.8.", "classifier.", "none"),
        ("efficientnet_b1", 0, "features.8.", "avgpool.attention.", "cbam"),
    ],
)
def test_frozen_layers_and_their_batchnorm_buffers_stay_bit_identical(arch, unfreeze, frozen, trained, attention):
    torch.manual_seed(0)
    model = build_model(arch, num_classes=3, unfreeze=unfreeze, attention=attention)
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


@pytest.mark.parametrize(("arch", "layer"), [("resnet50", "relu"), ("efficientnet_b1", "features.0")])
def test_features_are_means_of_quarters_and_the_spread_of_the_first_maps(arch, layer):
    model = warmed(arch).eval()
    maps = []
    model.net.get_submodule(layer).register_forward_hook(lambda *args: maps.append(args[-1].clone()))
    with torch.no_grad():
        model.net(IMAGES)
    quarters = torch.stack([half for rows in maps[0].chunk(2, dim=2) for half in rows.chunk(2, dim=3)], dim=2)
    spread = maps[0].flatten(2).std(dim=2, correction=0)
    expected = torch.cat([quarters.mean(dim=(3, 4)).flatten(1), (spread + 1e-4).log()], dim=1)
    describe = model.describing()
    assert_equal_to_rounding(describe(IMAGES), expected)
    assert describe.width() == expected.shape[1]


@pytest.mark.parametrize(
    ("arch", "unfreeze", "attention"),
    [("resnet50", "layer3", "none"), ("efficientnet_b1", 3, "none"), ("efficientnet_b1", 0, "se")],
)
def test_folding_changes_nothing_but_rounding(arch, unfreeze, attention):
    model = warmed(arch, unfreeze=unfreeze, attention=attention).eval()
    images = IMAGES.repeat(2, 1, 1, 1)[:7]  # not a multiple of what passes at once
    with torch.no_grad():
        expected = model.net(images)
        features = images
        for module in model._frozen_modules():
            features = module(features)
        frozen = model.frozen_part()
        assert_equal_to_rounding(frozen(images), features)
        assert_equal_to_rounding(model(images), expected)
        assert_equal_to_rounding(model.folded()(images), expected)
    for copied in (frozen, model.folded()):
        assert not any(isinstance(module, nn.BatchNorm2d) for module in copied.modules())
        assert not any(module.training for module in copied.modules())


@pytest.mark.usefixtures("small")
def test_the_folded_copy_is_no_part_of_the_model_and_is_kept_while_nothing_changes():
    model = build_model("resnet50", num_classes=3, unfreeze="layer2")
    keys, parameters = list(model.state_dict()), len(list(model.parameters()))
    optimizer = build_optimizer(model, lr=1e-2, weight_decay=0.0)
    with torch.inference_mode():
        model.eval()(IMAGES)
    made = model.frozen_part()
    model.train()(IMAGES).sum().backward()
    optimizer.step()
    assert model.frozen_part() is made
    assert list(model.state_dict()) == keys and len(list(model.parameters())) == parameters


def filled(module, *weights):
    """The module in float64 with constant weights and biases 0, one weight per layer in order."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.fill_(weight)
            layer.bias.zero_()
    return module.double()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_squeeze_and_excitation_by_hand():
    """16 channels and one hidden unit: 0.5 of the sum of the channels' means, times 0.1, is the logit of each gate."""
    features = torch.zeros(1, 16, 1, 2, dtype=torch.float64)
    features[0, 0] = torch.tensor([1.0, 3.0])
    features[0, 1] = torch.tensor([6.0, 2.0])
    gated = filled(SEAttention(16), 0.5, 0.1)(features)
    assert gated[0, :2].flatten().tolist() == pytest.approx([sigmoid(0.3) * x for x in (1, 3, 6, 2)])
    assert not gated[0, 2:].any()


def test_cbam_by_hand():
    """Channels: means 2 and 4, maxima 3 and 6, so the logit is 0.1 * 0.5 * (6 + 9). Places: a kernel of 7 sees both."""
    features = torch.zeros(1, 16, 1, 2, dtype=torch.float64)
    features[0, 0] = torch.tensor([1.0, 3.0])
    features[0, 1] = torch.tensor([6.0, 2.0])
    gate = sigmoid(0.1 * 0.5 * (6 + 9))
    means, maxima = [gate * 7 / 16, gate * 5 / 16], [gate * 6, gate * 3]
    place = sigmoid(0.01 * (sum(means) + sum(maxima)))
    gated = filled(CBAMAttention(16), 0.5, 0.1, 0.01)(features)
    assert gated[0, :2].flatten().tolist() == pytest.approx([place * gate * x for x in (1, 3, 6, 2)])


@pytest.mark.parametrize("kind", ATTENTION)
def test_attention_begins_as_a_factor_and_its_gradient_is_that_of_its_formula(kind):
    torch.manual_seed(0)
    features = torch.randn(2, 16, 3, 3, dtype=torch.float64)
    module = ATTENTION[kind](16).double()
    factor = 1 / (1 + math.exp(-3)) ** {"se": 1, "cbam": 2}[kind]
    torch.testing.assert_close(module(features), factor * features)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    gradcheck(lambda x, *_: module(x), (features.requires_grad_(), *module.parameters()))


@pytest.mark.parametrize(("arch", "kind"), [("resnet50", "se"), ("efficientnet_b1", "cbam")])
def test_a_checkpoint_brings_its_attention_back_and_its_heat_maps(arch, kind, tmp_path):
    model = build_model(arch, num_classes=3, attention=kind).eval()
    with torch.no_grad():
        for parameter in model.net.avgpool.parameters():
            parameter.normal_(std=0.1)
    state = {"arch": arch, "attention": kind, "classes": list("abc"), "image_size": 32, "manifest_sha256": ""}
    state |= {"pos_weight": [1.0] * 3, "model": model.net.state_dict()}
    save_checkpoint(tmp_path / "best.pt", state)
    loaded, _ = load_best(tmp_path, arch=arch)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IMAGES), model(IMAGES), rtol=0, atol=0)
    heat = class_heat(loaded.folded().layers, IMAGES[:1], logits=[0, 1, 2], weigh=METHODS["grad-cam"], cells=4)
    assert heat.shape == (3, 4, 4) and heat.max() == 1
    save_checkpoint(tmp_path / "best.pt", state | {"attention": "other"})
    with pytest.raises(ValueError, match="its attention is 'other'; expected se, cbam or none; train again"):
        load_best(tmp_path, arch=arch)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("there", ["none", *ATTENTION])
@pytest.mark.parametrize("here", ["none", *ATTENTION])
def test_weights_load_whatever_their_attention(there, here, tmp_path):
    source = build_model("efficientnet_b1", num_classes=3, attention=there).net.state_dict()
    source = {key: value + 0.01 if key.startswith("avgpool") else value for key, value in source.items()}
    torch.save(source, tmp_path / "w.pt")
    with warnings.catch_warnings(record=True) as said:
        model = build_model("efficientnet_b1", num_classes=2, attention=here, weights=str(tmp_path / "w.pt"))
    for key, value in model.net.state_dict().items():
        same = key in source and torch.equal(value, source[key])
        assert same == (key.startswith("features.") or (key.startswith("avgpool.") and there == here)), key
    assert bool(said) == (there not in ("none", here))


def changed_by_loading(model, other):
    model.load_state_dict(other.state_dict())
    return model


def changed_by_loading_into_the_net(model, other):
    model.net.load_state_dict(other.net.state_dict())
    return model


def changed_by_assigning(model, other):
    model.load_state_dict(other.state_dict(), assign=True)
    return model


def changed_after_a_deep_copy(model, other):
    return changed_by_loading(copy.deepcopy(model), other)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "change", [changed_by_loading, changed_by_loading_into_the_net, changed_by_assigning, changed_after_a_deep_copy]
)
def test_the_folded_copy_follows_the_weights(change):
    model, other = (warmed("resnet50", seed=seed, unfreeze="layer2").eval() for seed in (1, 2))
    before = model(IMAGES)
    changed = change(model, other)
    torch.testing.assert_close(changed(IMAGES), other(IMAGES))
    assert (changed(IMAGES) - before).abs().max() > 1e-3
    if changed is not model:
        torch.testing.assert_close(model(IMAGES), before)


@pytest.mark.usefixtures("small")
def test_the_folded_copy_follows_to_another_precision():
    model = warmed("resnet50", unfreeze="layer2").eval()
    model(IMAGES)
    torch.testing.assert_close(model.double()(IMAGES.double()), model.net(IMAGES.double()))


@pytest.mark.parametrize(("arch", "unfreeze"), [("resnet50", "layer3"), ("efficientnet_b1", 3), ("resnet50", "all")])
def test_frozen_batchnorms_stay_bit_identical_where_the_rest_trains(arch, unfreeze):
    model = build_model(arch, num_classes=3, unfreeze=unfreeze, freeze_batchnorm=True)
    norms = [module for module in model.net.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [copy.deepcopy(module.state_dict()) for module in norms]
    optimizer = build_optimizer(model, lr=1e-2, weight_decay=0.1)
    trained = next(p for p in model.parameters() if p.requires_grad)
    initial = trained.clone()
    model.train()(IMAGES).square().mean().backward()
    optimizer.step()
    for module, state in zip(norms, before, strict=True):
        assert not module.training and not any(p.requires_grad for p in module.parameters())
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert not torch.equal(trained, initial)


@pytest.mark.usefixtures("small")
def test_with_frozen_batchnorms_the_gradients_of_parts_add_up_to_those_of_the_batch():
    model = warmed("resnet50", unfreeze="layer4", freeze_batchnorm=True).train()
    model(IMAGES).square().sum().backward()
    whole = [gradient.clone() for gradient in gradients(model)]
    model.zero_grad()
    for part in IMAGES.split([1, 3]):
        model(part).square().sum().backward()
    for one, other in zip(whole, gradients(model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * one.abs().max().item())


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_a_compiled_step_is_the_step_and_follows_the_weights(monkeypatch):
    monkeypatch.setattr("src.models.CPU_STEP", 2)
    model = tiny_model().train()
    compiled = compile_for_training(model)
    for factor in (1, 2):
        model.load_state_dict({key: factor * value for key, value in model.state_dict().items()})
        results = []
        for run in (model, compiled):
            torch.manual_seed(3)  # dropout
            model.zero_grad()
            logits = run(IMAGES)
            logits.square().sum().backward()
            results.append([logits.detach(), *gradients(model)])
        for one, other in zip(*results, strict=True):
            assert_equal_to_rounding(one, other, 1e-4)


def test_compiling_is_refused_where_there_is_no_compiler(monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(ValueError, match=r"^--compile cannot be used on cpu here .*g\+\+, or leave out the flag$"):
        compile_for_training(tiny_model())


@pytest.mark.parametrize(("arch", "unfreeze"), [("resnet50", "all"), ("efficientnet_b1", 9)])
def test_everything_can_train(arch, unfreeze):
    model = build_model(arch, num_classes=3, unfreeze=unfreeze)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_weights_from_a_torchvision_state_dict_or_an_earlier_run(arch, tmp_path):
    torch.manual_seed(1)
    source = ARCHITECTURES[arch][0](weights=None)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    torch.save({"arch": arch, "model": source.state_dict(), "epoch": 3}, tmp_path / "best.pt")
    wrapped = {
        prefix: {f"{prefix}.{key}": value for key, value in source.state_dict().items()}
        for prefix in ("module", "model.module", "_orig_mod.encoder._orig_mod")
    }
    lightning = {**wrapped["model.module"], "criterion.pos_weight": torch.ones(3)}
    torch.save({"state_dict": lightning}, tmp_path / "lightning.ckpt")
    torch.save({"model": wrapped["module"], "epoch": 3}, tmp_path / "parallel.pt")
    torch.save(wrapped["_orig_mod.encoder._orig_mod"], tmp_path / "compiled.pt")
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    for name in ("w.pt", "best.pt", "lightning.ckpt", "parallel.pt", "compiled.pt", "w.safetensors"):
        said = pytest.warns(match="^criterion.pos_weight .* is left out .1 such") if "ckpt" in name else nullcontext()
        with said:
            state = build_model(arch, num_classes=3, weights=str(tmp_path / name)).net.state_dict()
        for key, value in source.state_dict().items():
            assert key.startswith(("fc.", "classifier.")) or torch.equal(state[key], value), key


@pytest.mark.usefixtures("small")
def test_weights_that_do_not_fit_or_are_no_state_dict_are_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(build_model("efficientnet_b1", num_classes=3).net.state_dict(), path)
    with pytest.raises(ValueError, match="another architecture"):
        build_model("resnet50", num_classes=3, weights=str(path))
    one = build_model("resnet50", num_classes=3).net.state_dict()
    two = {f"{copy}.{key}": value for copy in ("student", "teacher") for key, value in one.items()}
    torch.save(two, path)
    with pytest.raises(ValueError, match=r"several networks \(student., teacher.\)"):
        build_model("resnet50", num_classes=3, weights=str(path))
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="no state dict"):
        build_model("resnet50", num_classes=3, weights=str(path))
    path.write_text("no checkpoint")
    with pytest.raises(ValueError, match="not a torchvision state dict"):
        build_model("resnet50", num_classes=3, weights=str(path))


def test_weights_are_read_before_the_network_is_built(tmp_path, monkeypatch):
    def build(weights):
        raise AssertionError("built")

    monkeypatch.setitem(ARCHITECTURES, "resnet50", (build, ARCHITECTURES["resnet50"][1]))
    with pytest.raises(ValueError, match="no such file"):
        build_model("resnet50", num_classes=3, weights=str(tmp_path / "gone.pt"))


@pytest.mark.usefixtures("small")
def test_weights_with_nan_and_damaged_safetensors_are_named(tmp_path):
    state = build_model("resnet50", num_classes=3).net.state_dict()
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="conv1.weight holds NaN or infinity .1 such tensor"):
        build_model("resnet50", num_classes=3, weights=str(tmp_path / "w.pt"))
    (tmp_path / "w.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="w.safetensors is not a torchvision state dict .SafetensorError"):
        build_model("resnet50", num_classes=3, weights=str(tmp_path / "w.safetensors"))


def test_what_torch_says_of_a_file_with_code_is_not_passed_on(tmp_path):
    torch.save({"model": Intruder(tmp_path / "intruder")}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="save its state_dict.. alone") as error:
        build_model("resnet50", num_classes=3, weights=str(tmp_path / "w.pt"))
    assert "weights_only" not in str(error.value) and "\x1b" not in str(error.value)


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
