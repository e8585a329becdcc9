"""Models: the published counts of parameters, the seeded start, and models from elsewhere."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from infoloss.models import MODELS, Affine, PooledReLU, build
from infoloss.models.images import InParts
from infoloss.named import named

EMNIST, CIFAR = (1, 28, 28), (3, 32, 32)
# parameters as published, or as the papers' tables of layers give them
COUNTS = [
    ("vgg5", EMNIST, 26, 3_654_362),
    ("vgg5", EMNIST, 62, 3_672_830),
    ("spinal_vgg", EMNIST, 26, 3_637_978),
    ("vgg11_bn", CIFAR, 10, 9_231_114),
    ("resnet20", CIFAR, 10, 269_722),
    ("resnet32", CIFAR, 10, 464_154),
    ("resnet18", CIFAR, 10, 11_173_962),
    # 3·9·32+32, 32·9·64+64, 64·6·6·256+256, 256·10+10
    ("keras_cifar10", CIFAR, 10, 896 + 18_496 + 590_080 + 2_570),
]
IMAGE_MODELS = [name for name in MODELS if name not in ("linear", "mlp", "embedding_bag")]


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "shape", "classes", "count"), COUNTS)
def test_counts_of_parameters_are_the_published_ones(name, shape, classes, count):
    assert parameters(build(name, classes=classes, input_shape=shape, seed=0)) == count


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("shape", [(1, 33, 37), (3, 64, 64)], ids=["odd sides", "64 pixels"])
def test_images_of_other_sizes_are_read(name, shape):
    model = build(name, classes=7, input_shape=shape, seed=0)
    assert model(torch.randn(2, *shape)).shape == (2, 7)


def options(name):
    return {"vocabulary": 30} if name == "embedding_bag" else {}


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_is_a_start_and_the_global_generator_rests(name):
    shape = CIFAR if name in IMAGE_MODELS else (5,)
    before = torch.get_rng_state()
    first, again, other = (
        build(name, classes=3, input_shape=shape, seed=seed, **options(name)) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(name):
    """Gradients reach all of them: no layer is left out of the forward pass."""
    shape = CIFAR if name in IMAGE_MODELS else (5,)
    model = build(name, classes=3, input_shape=shape, seed=0, **options(name))
    rows = torch.randint(1, 30, (8, 5)) if name == "embedding_bag" else torch.randn(8, *shape)
    model(rows).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", [*IMAGE_MODELS, "embedding_bag"])
def test_rows_of_the_wrong_shape_are_refused(name):
    shape = (5,) if name in IMAGE_MODELS else CIFAR
    with pytest.raises(ValueError, match=f"the model {name} reads"):
        build(name, classes=3, input_shape=shape, seed=0, **options(name))


def test_images_too_small_for_the_halvings_are_refused():
    with pytest.raises(ValueError, match="16 pixels or more a side, got 12 × 28"):
        build("vgg5", classes=3, input_shape=(1, 12, 28), seed=0)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_images_are_one_long_row_to_models_of_tables(name):
    model = build(name, classes=3, input_shape=(2, 4, 5), seed=0)
    image = torch.randn(6, 2, 4, 5)
    flat = build(name, classes=3, input_shape=(40,), seed=0)
    assert torch.equal(model(image), flat(image.flatten(1)))


def test_batch_norm_stands_before_every_affine_map():
    model = build("mlp", classes=3, input_shape=(4,), seed=0, hidden=(5, 6), batch_norm=True)
    kinds = [type(layer) for layer in model]
    once = [nn.BatchNorm1d, Affine, nn.ReLU]
    assert kinds == [*once, *once, nn.BatchNorm1d, nn.Linear]


@pytest.mark.parametrize("n", [0, 1, 50, 51, 120])
def test_parts_of_a_batch_are_the_batch(n):
    """With the same dropout; weights' gradients are sums, in another order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = nn.Sequential(nn.Conv2d(3, 4, 3), PooledReLU(0.5), nn.Flatten()).double()
    parts = InParts(*copy.deepcopy(whole))
    x = torch.randn(n, 3, 8, 8, dtype=torch.float64).requires_grad_()
    found = []
    for layers in (whole, parts):
        y = layers(x)
        found.append([y, *torch.autograd.grad((y**2).sum(), [x, *layers.parameters()])])
    assert found[0][0].shape == (n, 36)
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*found, strict=True))


def test_he_starts_have_their_spread():
    model = build("vgg5", classes=26, input_shape=EMNIST, seed=0)
    widest = next(m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 256)
    assert widest.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert widest.bias.abs().max() == 0


def test_keras_starts_have_their_bounds():
    model = build("keras_cifar10", classes=10, input_shape=CIFAR, seed=0)
    hidden = next(m for m in model.modules() if isinstance(m, nn.Linear))
    bound = (6 / (2304 + 256)) ** 0.5
    assert bound * 0.999 < hidden.weight.abs().max().item() <= bound
    assert hidden.bias.abs().max() == 0


def test_the_padded_shortcut_is_he_option_a():
    """With the residual branch at 0, a block with stride 2 gives every second pixel and zero channels."""
    model = build("resnet20", classes=3, input_shape=(1, 8, 8), seed=0)
    block = next(m for m in model if getattr(getattr(m, "shortcut", None), "stride", 1) == 2)
    nn.init.zeros_(block.residual[-1].weight)
    x = torch.rand(2, 16, 8, 8)
    y = block.eval()(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert y[:, :8].abs().max() == y[:, 24:].abs().max() == 0


def test_the_spine_reads_the_halves_in_turn():
    """Against the formula, layer by layer, in eval mode: x1 = f(a), x2 = f([b, x1]), x3 = f([a, x2]), …"""
    model = build("spinal_vgg", classes=4, input_shape=EMNIST, seed=0).eval()
    spine = next(m for m in model if hasattr(m, "middle"))
    features = torch.randn(3, 256)
    a, b = features[:, :128], features[:, 128:]
    x1 = spine.layers[0](a)
    x2 = spine.layers[1](torch.cat([b, x1], 1))
    x3 = spine.layers[2](torch.cat([a, x2], 1))
    x4 = spine.layers[3](torch.cat([b, x3], 1))
    assert torch.equal(spine(features), torch.cat([x1, x2, x3, x4], 1))


class TestEmbeddingBag:
    def model(self):
        return build("embedding_bag", classes=3, input_shape=(6,), seed=0, vocabulary=20, width=4)

    def test_it_is_the_mean_over_tokens_that_are_not_padding(self):
        model = self.model()
        tokens = np.array([[3, 5, 5, 0, 0, 0], [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]])
        table = model[0].weight.detach().numpy()
        means = np.stack([table[row[row > 0]].mean(0) if row.any() else np.zeros(4) for row in tokens])
        expected = means @ model[1].weight.detach().numpy().T + model[1].bias.detach().numpy()
        found = model(torch.from_numpy(tokens.astype(np.int32))).detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_padding_does_not_learn(self):
        model = self.model()
        model(torch.tensor([[3, 0, 0, 0, 0, 0]])).sum().backward()
        assert model[0].weight.grad[0].abs().sum() == 0
        assert model[0].weight.grad[3].abs().sum() > 0

    def test_ids_that_are_no_ids_are_refused(self):
        with pytest.raises(TypeError, match="integer type, got torch"):
            self.model()(torch.ones(2, 6))


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's own in the working directory."""
    (tmp_path / "my_models.py").write_text(
        "from torch import nn\n"
        "def counted(num_classes):\n    return nn.LazyLinear(num_classes)\n"
        "def shaped(classes, input_shape, width=3):\n"
        "    return nn.Sequential(nn.Linear(input_shape[0], width), nn.Linear(width, classes))\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self, *, input_shape, classes):\n        super().__init__(*input_shape, classes)\n"
        "def blind():\n    return nn.Linear(4, 3)\n"
        "def text(classes):\n    return 'no model'\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_models", None)


@pytest.mark.usefixtures("mine")
class TestOnesOwn:
    @pytest.mark.parametrize("name", ["counted", "shaped", "Net"])
    def test_a_function_gets_what_its_signature_has(self, name):
        model = build(f"my_models:{name}", classes=3, input_shape=(4,), seed=0)
        assert not any(nn.parameter.is_lazy(parameter) for parameter in model.parameters())
        assert model.training
        assert model(torch.randn(2, 4)).shape == (2, 3)

    def test_options_are_passed_on(self):
        model = build("my_models:shaped", classes=3, input_shape=(4,), seed=0, width=9)
        assert model[0].out_features == 9

    @pytest.mark.parametrize(
        ("name", "error", "message"),
        [
            (
                "my_models:blind",
                ValueError,
                r"my_models:blind\(\) cannot be called.*given classes",
            ),
            ("my_models:text", TypeError, "made str; expected a torch.nn.Module"),
            ("my_models:number", ValueError, "is int; expected a function"),
            ("my_models:shapd", ValueError, "my_models has no 'shapd'; did you mean 'shaped'"),
            ("your_models:net", ValueError, "no module 'your_models'"),
            ("my_modles", ValueError, "unknown model 'my_modles'; expected linear, mlp"),
        ],
    )
    def test_mistakes_are_named(self, name, error, message):
        with pytest.raises(error, match=message):
            build(name, classes=3, input_shape=(4,), seed=0)

    def test_options_that_the_function_lacks_are_named(self):
        with pytest.raises(ValueError, match="unexpected keyword argument 'depth'"):
            build("my_models:shaped", classes=3, input_shape=(4,), seed=0, depth=2)

    def test_an_error_inside_the_module_is_the_users_to_read(self, tmp_path):
        (tmp_path / "broken.py").write_text("import not_there_at_all\n")
        with pytest.raises(ImportError, match=r"broken cannot be imported: .*not_there_at_all"):
            named("broken:net")


class TestLibraries:
    """Small fakes: what is passed to timm and transformers, and what is made of their answers."""

    def test_timm_is_asked_for_the_classes_and_channels(self, monkeypatch):
        asked = {}

        def create_model(name, **options):
            asked.update(options, name=name)
            return nn.Flatten()

        monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
        build("timm:resnet10t.c3_in1k", classes=5, input_shape=CIFAR, seed=0, pretrained=True, drop_rate=0.1)
        assert asked == {
            "name": "resnet10t.c3_in1k",
            "pretrained": True,
            "num_classes": 5,
            "in_chans": 3,
            "drop_rate": 0.1,
        }
        with pytest.raises(ValueError, match="reads images"):
            build("timm:resnet10t", classes=5, input_shape=(4,), seed=0)

    @pytest.mark.parametrize("pretrained", [False, True])
    def test_transformers_give_their_logits_and_padding_is_masked(self, monkeypatch, pretrained):
        calls = []

        class Model(nn.Module):
            def __init__(self, config):
                super().__init__()
                self.config, self.embedding = config, nn.Embedding(20, config.num_labels)

            def forward(self, input_ids, attention_mask):
                assert input_ids.dtype == attention_mask.dtype == torch.int64
                kept = self.embedding(input_ids) * attention_mask[..., None]
                return SimpleNamespace(logits=kept.sum(1))

        def config(name, num_labels, **options):
            calls.append(("config", name, options))
            return SimpleNamespace(num_labels=num_labels, pad_token_id=0)

        class Auto:
            from_config = staticmethod(Model)

            @staticmethod
            def from_pretrained(name, *, num_labels, ignore_mismatched_sizes):
                calls.append(("weights", name, ignore_mismatched_sizes))
                return Model(config(name, num_labels))

        fake = ModuleType("transformers")
        fake.AutoConfig = SimpleNamespace(from_pretrained=config)
        fake.AutoModelForSequenceClassification = Auto
        monkeypatch.setitem(sys.modules, "transformers", fake)
        model = build("hf:tiny/bert", classes=4, input_shape=(5,), seed=0, pretrained=pretrained)
        assert calls[0] == (("weights", "tiny/bert", True) if pretrained else ("config", "tiny/bert", {}))
        one, padded = torch.tensor([[7]]), torch.tensor([[7, 0, 0]], dtype=torch.int32)
        assert torch.equal(model(one), model(padded))

    def test_transformers_read_images(self, monkeypatch):
        class Model(nn.Module):
            def __init__(self, config):
                super().__init__()
                self.classes = config

            def forward(self, pixel_values):
                return OrderedLogits(logits=pixel_values.flatten(1)[:, : self.classes])

        class OrderedLogits(OrderedDict):
            @property
            def logits(self):
                return self["logits"]

        fake = ModuleType("transformers")
        fake.AutoConfig = SimpleNamespace(from_pretrained=lambda name, num_labels: num_labels)
        fake.AutoModelForImageClassification = SimpleNamespace(from_config=Model)
        monkeypatch.setitem(sys.modules, "transformers", fake)
        images = torch.randn(2, *CIFAR)
        model = build("hf:vit", classes=6, input_shape=CIFAR, seed=0)
        assert torch.equal(model(images), images.flatten(1)[:, :6])

    @pytest.mark.parametrize("pretrained", [False, True])
    def test_a_small_model_of_transformers_itself(self, tmp_path, pretrained):
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        config = transformers.BertConfig(vocab_size=30, num_labels=2, **sizes)
        saved = transformers.BertForSequenceClassification(config)
        saved.save_pretrained(tmp_path)
        model = build(f"hf:{tmp_path}", classes=5, input_shape=(6,), seed=0, pretrained=pretrained).eval()
        tokens = torch.tensor([[3, 9, 4, 0, 0, 0], [3, 9, 4, 7, 7, 1]], dtype=torch.int32)
        logits = model(tokens)
        assert logits.shape == (2, 5)
        assert torch.allclose(logits[:1], model(tokens[:1, :3]), atol=1e-6), "padding takes no part"
        same = torch.equal(
            saved.bert.embeddings.word_embeddings.weight, model.model.bert.embeddings.word_embeddings.weight
        )
        assert same == pretrained

    @pytest.mark.parametrize(("name", "package"), [("timm:resnet18", "timm"), ("hf:bert", "transformers")])
    def test_what_is_not_installed_is_named(self, monkeypatch, name, package):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ModuleNotFoundError, match=f"the model {name} needs {package}: pip install"):
            build(name, classes=3, input_shape=CIFAR, seed=0)
