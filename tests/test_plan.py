"""The plan: what is wrong is named with its place; what is open is settled by the data."""

import importlib
import linecache
import sys

import numpy as np
import pytest
import torch
from study_cases import blobs, small_plan

import infoloss as il
from infoloss.data import altered, load
from infoloss.study.design import Design, DesignError, default_losses, settled, uneven
from infoloss.study.plan import Plan, PlanError


def read(tmp_path, text, **options):
    path = tmp_path / "study.toml"
    path.write_text(text)
    return Plan.read(path, options=options)


FULL = """
data = "wine"
model = {name = "mlp", hidden = [32, 16]}
losses = ["squentropy", "cross_entropy + 0.1*entropy"]
seeds = 3
metric = "nll"

[training]
optimiser = "sgd"
epochs = 7

[tuning]
learning_rates = [0.1, 0.2, 0.3, 0.4]
seeds = 2

[margins]
labels = 1
"""


def test_a_full_file_is_read(tmp_path):
    plan = read(tmp_path, FULL)
    assert plan.data.source == "wine"
    assert plan.model.hidden == (32, 16)
    assert [loss.expression for loss in plan.losses] == ["squentropy", "cross_entropy + 0.1*entropy"]
    assert plan.seeds == (0, 1, 2)
    assert len(plan.tuning.seeds) == 2
    assert not set(plan.tuning.seeds) & set(plan.seeds)
    assert (plan.training.optimiser, plan.training.epochs, plan.training.batch_size) == ("sgd", 7, 64)
    assert (plan.margins.labels, plan.margins.nll) == (1.0, 0.01)


def test_options_go_before_the_file(tmp_path):
    plan = read(tmp_path, FULL, seeds=5, training={"epochs": 9}, data={"target": "y"}, tuning=False)
    assert plan.seeds == tuple(range(5))
    assert (plan.training.optimiser, plan.training.epochs) == ("sgd", 9)
    assert (plan.data.source, plan.data.target) == ("wine", "y")
    assert not plan.tuning.enabled


def test_losses_come_as_terms_and_with_labels():
    plan = Plan.of(losses={"mine": il.cross_entropy() + 0.1 * il.entropy(), "theirs": "focal"})
    assert [(loss.name, il.parse(loss.expression)) for loss in plan.losses] == [
        ("mine", il.cross_entropy() + 0.1 * il.entropy()),
        ("theirs", il.focal()),
    ]


def test_a_term_with_a_tensor_inside_is_refused():
    with pytest.raises(PlanError, match="cannot be written as an expression"):
        Plan.of(losses=[il.cross_entropy() + torch.tensor(0.1) * il.entropy()])


WRONG = [
    ('modle = "mlp"', r'study\.toml: modle: unknown key; did you mean "model"\?'),
    ("[training]\nepoch = 3", r'study\.toml: training\.epoch: unknown key; did you mean "epochs"\?'),
    ("[training]\nepochs = 0", r"study\.toml: training\.epochs: 0: should be greater than 0"),
    ("[training]\nepochs = 2.5", r"training\.epochs: 2\.5: should be a valid integer"),
    ('[training]\noptimiser = "adam"', r'\'adam\' is none of "adamw" or "sgd"; did you mean "adamw"\?'),
    ('metric = "acuracy"', r'metric: \'acuracy\' is none of .*; did you mean "accuracy"\?'),
    ('losses = ["focl"]', r"losses\[0\]: .*focal"),
    ("losses = []", r"losses: .*at least 1 item"),
    ('[[losses]]\nlabel = "x"', r"losses\[0\]\.expression: missing"),
    ('[[losses]]\nexpresion = "focal"', r'losses\[0\]\.expresion: unknown key; did you mean "expression"\?'),
    ("[tuning]\nlearning_rates = [0.1, 0.2]", r"tuning\.learning_rates: .*at least 4 items"),
    ("[tuning]\nlearning_rates = [0.1, 0.1, 0.2, 0.3]", r"learning_rates holds \[0\.1\] more than once"),
    ("[tuning]\nlearning_rates = [-0.1, 0.1, 0.2, 0.3]", r"tuning\.learning_rates\[0\]: -0\.1: .*greater"),
    ("seeds = 0", r"seeds: 0: "),
    ("seeds = [1, 1]", r"seeds holds \[1\] more than once"),
    ("seeds = [1, 2]\n[tuning]\nseeds = [2, 3]", r"seeds \[2\] both tune and compare"),
    ("[training]\nlearning_rate = 0.1", r"training\.learning_rate is for studies without tuning"),
    ('model = {name = "linear", hidden = [4]}', r'model: the model "linear" has no option "hidden"'),
    ("model = {hiden = [4]}", r'no option "hiden"; did you mean "hidden"\? \(it has: hidden, batch_norm\)'),
    ('model = {batch_norm = "perhaps"}', r"model: batch_norm: 'perhaps': should be a valid boolean"),
    ('model = "vgg6"', r"model\.name: 'vgg6' is none of .*module:function; did you mean \"vgg5\"\?"),
    ("[training]\naugmentation = ['rotate']", r"training\.augmentation\[0\]: unknown augmentation 'rotate'"),
    ("[training]\naugmentation = ['crop', 'crop=2']", r"training: augmentation holds \['crop'\] more than"),
    ("[training]\nprecision = 'float16'", r'\'float16\' is none of "float32" or "bfloat16"'),
    ("[margins]\nlabels = -1", r"margins\.labels: -1: should be greater than 0"),
    ("[data]\nimbalance = 0.5", r"data\.imbalance: 0\.5: should be greater than or equal to 1"),
    ("[data]\ntrain_rows = 0", r"data\.train_rows: 0: should be greater than 0"),
    ("[data]\nlabel_noise = 1", r"data\.label_noise: 1: should be less than 1"),
    ('[data]\ntext = "token"', r'\'token\' is none of "hashed" or "tokens"; did you mean "tokens"\?'),
    ("[data\n", r"study\.toml: not a TOML file: .*line"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_mistake_names_itself(tmp_path, text, message):
    with pytest.raises(PlanError, match=message):
        read(tmp_path, text)


def test_the_data_are_read_and_altered():
    data = Plan.of(data={"source": "digits", "imbalance": 20, "label_noise": 0.25}).data.dataset()
    expected = altered(load("digits"), imbalance=20, label_noise=0.25)
    assert data.sha256 == expected.sha256
    assert Plan.of(data="digits").data.dataset().sha256 == load("digits").sha256
    step = Plan.of(data={"imbalance": 5, "imbalance_profile": "step"}).data.dataset()
    assert step.alteration.described() == {"imbalance": 5.0, "profile": "step"}
    few = Plan.of(data={"source": "digits", "train_rows": 200}).data.dataset()
    assert few.sha256 == altered(load("digits"), train_rows=200).sha256
    assert len(few.split(0).train) == 200


def test_every_mistake_is_named_and_its_source(tmp_path):
    with pytest.raises(PlanError) as caught:
        read(tmp_path, "[training]\nepoch = 3", metric="acc", training={"batch": 1})
    places = [line.split(":")[0] for line in caught.value.mistakes]
    assert sorted(place.rsplit("/", 1)[-1] for place in places) == [
        "command line",
        "command line",
        "study.toml",
    ]


class TestSettled:
    def test_small_tables_get_20_seeds_and_large_ones_5(self):
        assert len(settled(Plan.of(), blobs()).seeds) == 20
        assert len(settled(Plan.of(), blobs(10_002)).seeds) == 5

    def test_even_classes_are_judged_by_accuracy_and_uneven_ones_by_balanced_accuracy(self):
        for dataset, metric in ((blobs(), "accuracy"), (blobs(counts=(2, 1)), "balanced_accuracy")):
            design = settled(Plan.of(), dataset)
            assert (design.metric, design.labels_metric) == (metric, metric)
            by_nll = settled(Plan.of(metric="nll"), dataset)
            assert (by_nll.metric, by_nll.labels_metric) == ("nll", metric)
        assert not uneven([2, 3])
        assert uneven([20, 31])

    @pytest.mark.parametrize("counts", [(50, 50, 50), (90, 10), (40, 60), (300, 100, 10)])
    def test_no_default_loss_equals_another_on_the_data_at_hand(self, counts):
        """Equal would be: the same gradient up to a factor, on random logits with these class frequencies."""
        texts = default_losses(counts)
        assert len(texts) == 8
        assert texts[0] == "cross_entropy"
        generator = torch.Generator().manual_seed(0)
        target = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        logits = 2 * torch.randn(len(target), len(counts), generator=generator, dtype=torch.float64)
        directions = []
        for text in texts:
            term = il.parse(text)
            term = term.bind(**{name: [float(c) for c in counts] for name in term.unbound})
            z = logits.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(term(z, target), z)
            directions.append((gradient / gradient.norm()).flatten())
        cosines = torch.stack(directions) @ torch.stack(directions).T - torch.eye(8)
        assert cosines.max() < 0.9999

    def test_training_rows_made_uneven_are_judged_and_learnt_as_such(self):
        design = settled(Plan.of(), altered(blobs(600), imbalance=10))
        assert design.metric == "balanced_accuracy"
        assert "balanced_softmax" in [arm.label for arm in design.arms]
        assert any(note.startswith("imbalance 10") for note in design.notes)

    def test_prior_losses_are_default_only_where_classes_are_uneven(self):
        unbound = [{t for t in default_losses(c) if il.parse(t).unbound} for c in ((50, 50), (90, 10))]
        assert unbound == [set(), {"balanced_softmax"}]

    def test_the_baseline_comes_first_and_once(self):
        design = settled(small_plan(losses=["focal", "cross_entropy"]), blobs())
        assert [arm.label for arm in design.arms] == ["cross_entropy", "focal"]
        other = settled(small_plan(losses=["cross_entropy"], baseline="focal"), blobs())
        assert [arm.label for arm in other.arms] == ["focal", "cross_entropy"]

    @pytest.mark.parametrize(
        ("losses", "message"),
        [
            (["focal", "focal(gamma=2.0)"], "are the same"),
            (["cross_entropy", "cross_entropy(label_smoothing=0.0)"], "2 times"),
            ({"a": "focal", "cross_entropy": "mae"}, "'cross_entropy' names both"),
            (["entropy"], 'regulariser alone; add it to a loss: "cross_entropy \\+ entropy"'),
            (["cross_entropy + beta*entropy"], "no value for beta"),
            (["balanced_softmax(counts=[1, 2])"], "cannot be trained on 3 classes"),
        ],
    )
    def test_losses_that_cannot_be_compared_are_refused_before_anything_runs(self, losses, message):
        with pytest.raises(PlanError, match=message):
            settled(small_plan(losses=losses), blobs())

    def test_a_model_that_cannot_read_the_data_is_refused_before_anything_runs(self):
        with pytest.raises(PlanError, match=r"model: the model vgg5 reads images .* got rows of shape"):
            settled(small_plan(model="vgg5"), blobs())

    def test_augmentation_that_cannot_change_the_data_is_refused_before_anything_runs(self):
        with pytest.raises(PlanError, match=r"training: flip is for images, and the rows have shape \(4,\)"):
            settled(small_plan(training={"augmentation": ["flip"]}), blobs())
        design = settled(small_plan(training={"augmentation": ["mixup"]}), blobs())
        assert design.training["augmentation"] == ["mixup=0.2"]

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_bfloat16_is_said(self, precision):
        notes = settled(small_plan(training={"precision": precision}), blobs()).notes
        assert any("trained in bfloat16" in note for note in notes) == (precision == "bfloat16")

    def test_a_model_of_ones_own_is_known_by_its_source(self, tmp_path, monkeypatch):
        def designed(body):
            (tmp_path / "my_net.py").write_text(
                f"from torch import nn\ndef inner(n):\n    return {body}\n"
                "class Net(nn.Linear):\n"
                "    def __init__(self, classes):\n        super().__init__(inner(4), classes)\n"
            )
            sys.modules.pop("my_net", None)
            importlib.invalidate_caches()
            linecache.clearcache()
            return settled(small_plan(model="my_net:Net"), blobs())

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        first, same, other = designed("n"), designed("n"), designed("1 * n")
        assert first.model == same.model
        with pytest.raises(DesignError, match=r"model\.source is"):
            other.extended(first)

    def test_a_design_survives_json(self):
        import json

        design = settled(small_plan(), load("wine"))
        again = Design.from_json(json.loads(json.dumps(design.to_json())))
        assert again.to_json() == design.to_json()
        assert (again.name, again.arms, again.seeds) == (design.name, design.arms, design.seeds)


class TestExtension:
    def design(self, **options):
        return settled(small_plan(**options), blobs())

    def test_the_folder_name_rests_on_all_but_losses_and_seeds(self):
        name = self.design().name
        assert name.startswith("infoloss-blobs-")
        assert name == self.design(losses=["focal"], seeds=9).name
        changes = ({"training": {"epochs": 4}}, {"metric": "nll"}, {"model": "linear"}, {"baseline": "focal"})
        others = [self.design(**change).name for change in (*changes, {"margins": {"nll": 0.02}})]
        assert len({name, *others}) == 6
        assert settled(small_plan(), blobs(seed=1)).name != name

    def test_losses_and_seeds_are_joined(self):
        joined = self.design(losses=["focal"], seeds=[5]).extended(self.design())
        assert [arm.label for arm in joined.arms] == ["cross_entropy", "focal", "squentropy", "min_ent"]
        assert joined.seeds == (0, 1, 5)

    def test_another_study_is_refused_with_the_difference(self):
        with pytest.raises(DesignError, match=r"training\.epochs is 3 there and 4 here"):
            self.design(training={"epochs": 4}).extended(self.design())

    def test_uneven_counts_take_arrays(self):
        assert uneven(np.array([10, 16]))
