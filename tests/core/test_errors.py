"""Bad input gives one clear error that names the key, what was expected and what came, before any training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf

import eai
from eai.core.cli import replace_node, split_group_choice
from eai.core.config import build, check_experiment, portable, refuse_shared, resolve
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.run.build import build_data_and_task, preflight
from eai.core.trainer_keys import check_trainer, is_shortened
from eai.core.trust import trusted
from eai.tasks.dynamics.graphs import Graph
from tests.runs import Train, composed


def prepare(*overrides: str) -> None:
    """Everything that happens before training."""
    cfg = resolve(composed("train", overrides))
    experiment = check_experiment(cfg)
    data, task = build_data_and_task(cfg, experiment)
    preflight(experiment, data, task)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+typo=1"], r"^typo: unknown key"),
        (["+model.net.stepz=3"], r"^model\.net\.stepz: unknown key; did you mean 'steps'\?"),
        (["+trainer.max_epoch=3"], r"^trainer\.max_epoch: unknown key; did you mean 'max_epochs'\?"),
        (["+figures.evry=3"], r"^figures\.evry: unknown key"),
        (["data.n=abc"], r"^data\.n: expected int \| Grid, got 'abc'"),
        (["data.n=null"], r"^data\.n: expected int \| Grid, got None"),
        (["data.n=12.5"], r"^data\.n: expected int \| Grid, got 12\.5"),
        (["data.n=true"], r"^data\.n: expected int \| Grid, got True"),
        (["shared.obs_error.sigma='0.1'"], r"^[a-z_.]+\.sigma: expected float, got '0\.1'"),
        (["model.loss.precision=half"], r"^model\.[a-z_.]+\.precision: expected .*'float32', 'float64'.*got 'half'"),
        (["~data.covariance"], r"^data\.covariance|Interpolation key 'data\.covariance'"),
        (["shared/covariance=nmc"], r"^data\.covariance\.truth: expected a covariance: .*@data\.true_covariance=soar"),
        (["data.n=4"], r"^data\.n: expected at least 8, got 4"),
        (["data.network.p=61"], r"^data\.network\.p: expected p \+ withheld ≤ 60 free of 60 grid points, got 65"),
        (["shared.obs_error.sigma=-1"], r"^[a-z_.]+\.sigma: expected above 0, got -1"),
        (["data.batch_size=0"], r"^data\.batch_size: expected at least 1, got 0"),
        (["shared.covariance.n=50"], r"^data\.covariance: expected size n = 60, got 50"),
        (["shared.covariance.nugget=0"], r"^[a-z.]+\.covariance: expected a positive definite.*smallest eigenvalue"),
        (["model.net.first_guess.width=0"], r"^model\.net\.first_guess\.width: expected at least 1, got 0"),
        (["model.optimizer.lr=-1"], r"^model\.optimizer: Invalid learning rate: -1"),
        (["monitor.score=val/nix"], r"^monitor\.score: expected one of .*val/j_ratio.*, got 'val/nix'"),
        (["headline.baseline=nix"], r"^headline\.baseline: expected one of background, blue, .*got 'nix'"),
        (["monitor.mode=most"], r"^monitor\.mode: expected .*'min', 'max'.*got 'most'"),
        (["seed=-1"], r"^seed: expected 0 to 2\*\*32 - 1, got -1"),
        (["seed=4294967296"], r"^seed: expected 0 to 2\*\*32 - 1, got 4294967296"),
        (["epochs=0"], r"^epochs: expected at least 1, got 0"),
        (["validate_every_n_epochs=0"], r"^validate_every_n_epochs: expected at least 1, got 0"),
        (["accelerator.threads=0"], r"^accelerator\.threads: expected null or at least 1, got 0"),
        (["accelerator.devices=0"], r"^accelerator\.devices: expected auto or at least 1, got 0"),
        (["model/assimilation=tutorial_mlp"], r"^model\.net\.p: expected the number of observations in the data, 22"),
        (["data.network.on_grid=false"], r"^data\.operator: expected Interpolation or WindowAverage.*got 'PointValue'"),
    ],
)  # fmt: skip
def test_mistake_is_named_by_its_key(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare("task=assimilation", *overrides)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("model.loss.covariance.length", "shared.covariance.length"),
        ("data.covariance.length", "shared.covariance.length"),
        ("model.net.cost.obs_error.sigma", "shared.obs_error.sigma"),  # through two interpolations
        ("model.net.first_guess.cost.precision", "model.loss.precision"),
    ],
)
def test_key_below_an_interpolated_node_is_refused_for_it_would_change_two_places(key: str, place: str) -> None:
    cfg = composed("train", ["task=assimilation"])
    with pytest.raises(
        ConfigError, match=f"^{re.escape(key)}: would change {re.escape(place)}, which other nodes use too"
    ):
        refuse_shared(cfg, ["epochs", key])
    refuse_shared(cfg, [place, "model.optimizer.lr", "data.true_covariance.length", "new.key", "data.covariance"])


def test_run_with_an_override_of_two_places_is_refused(train: Train, finished: RunDirectory) -> None:
    override = "model.loss.covariance.length=0.5"
    for refused in (lambda: train("task=assimilation", override), lambda: eai.load_run(finished.path, [override])):
        with pytest.raises(ConfigError, match=r"^model\.loss\.covariance\.length: would change shared"):
            refused()


def test_graph_that_cannot_carry_the_signal_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"^model\.net.*reach.*data"):
        prepare("task=dynamics", "data.speed=3.0", "data.nx=101")


@pytest.mark.parametrize(
    ("override", "instead"),
    [
        ("+trainer.precision=64-true", "set accelerator.precision"),
        ("+trainer.devices=2", "set accelerator.devices"),
        ("+trainer.strategy=nonsense", "set accelerator.strategy"),
        ("+trainer.default_root_dir=x", "set hydra.run.dir"),
        ("+trainer.logger=false", "choose logger="),
        ("+trainer.enable_checkpointing=false", "checkpoints"),
        ("+trainer.gradient_clip_val=1.0", "set optimization.clip_norm"),
        ("+trainer.accumulate_grad_batches=2", "set optimization.accumulate"),
        ("+trainer.fast_dev_run=true", "trainer=debug"),
        ("+trainer.overfit_batches=0.5", "set trainer.limit_train_batches"),
        ("trainer.limit_test_batches=0", "expected above 0, got 0"),
        ("trainer.max_epochs=3", "set epochs, got 3"),
        ("trainer.check_val_every_n_epoch=3", "set validate_every_n_epochs, got 3"),
    ],
)
def test_argument_of_the_trainer_that_would_be_ignored_names_the_key_to_use(override: str, instead: str) -> None:
    cfg = resolve(composed("train", ["task=assimilation", "epochs=20", override]))
    key = override.lstrip("+").partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}: .*{re.escape(instead)}"):
        check_trainer(cfg)
    check_experiment(cfg)  # the directory of an old run may say so


@pytest.mark.parametrize(
    ("overrides", "shortened"),
    [
        ([], False),
        (["epochs=1"], False),
        (["trainer=debug"], True),
        (["trainer.limit_train_batches=1"], True),
        (["+trainer.max_steps=5"], True),
        (["+trainer.gradient_clip_val=null", "+trainer.accumulate_grad_batches=1"], False),
    ],
)
def test_shortened_run_is_known_by_its_trainer(overrides: list[str], shortened: bool) -> None:
    cfg = resolve(composed("train", ["task=assimilation", *overrides]))
    check_trainer(cfg)
    assert is_shortened(cfg) is shortened


@pytest.mark.parametrize("override", ["task=nix", "data.nix=3", "experiment=nix", "data/assimilation=nix"])
def test_unknown_choice_or_key_is_refused_by_hydra_with_its_name(override: str) -> None:
    with pytest.raises(HydraException, match="nix"):
        composed("train", ["task=assimilation", override])


NODE = "{_target_: eai.variational.covariance.SOARCovariance, n: 60}"
HOSTILE = {
    "another package": "model.net._target_=os.system",
    "a file writer of core": "model.net._target_=eai.core.files.write_json",
    "a private function of core": "model.net._target_=eai.core.compare.summary._draw",
    "a checkpoint reader of core": "model.net._target_=eai.core.run.checkpoints.weights_file",
    "a class of core": "model.net._target_=eai.core.directory.RunDirectory",
    "a module's attribute": "model.net._target_=eai.core.directory.subprocess.run",
    "what a task imports": "model.net._target_=eai.tasks.assimilation.task.VariationalCost",
    "a task's import of torch": "model.net._target_=eai.tasks.assimilation.task.torch.save",
    "a private name": "model.net._target_=eai.tasks.dynamics.graphs._graph",
    "a dunder": "model.net._target_=eai.tasks.dynamics.graphs.__builtins__",
    "a method": "model.net._target_=eai.variational.covariance.SOARCovariance.from_dict",
    "a function of a task": "model.net._target_=eai.tasks.dynamics.graphs.ring",
    "a net for the data": "data._target_=eai.variational.nets.IncrementMLP",
    "data for the net": "model.net._target_=eai.tasks.assimilation.data.Twin",
    "a net for a loss": "model.loss.covariance._target_=eai.variational.nets.IncrementMLP",
    "the Trainer elsewhere": "model.net._target_=lightning.Trainer",
    "something else than the Trainer": "trainer._target_=eai.variational.nets.IncrementMLP",
    "torch.load": "model.optimizer._target_=torch.load",
    "a module of torch.optim": "model.optimizer._target_=torch.optim.lr_scheduler",
    "a function of torch.optim": "model.optimizer._target_=torch.optim.lr_scheduler.wraps",
    "an import of torch.optim": "model.scheduler._target_=torch.optim.lr_scheduler.Counter",
    "an optimizer for the net": "model.net._target_=torch.optim.Adam",
    "a function of pytorch_optimizer": "model.optimizer._target_=pytorch_optimizer.load_optimizer",
    "a loss of pytorch_optimizer": "model.optimizer._target_=pytorch_optimizer.FocalLoss",
    "a module of pytorch_optimizer": "model.optimizer._target_=pytorch_optimizer.optimizer.torch.save",
    "a number": "model.net._target_=3",
    "a node among the Trainer's arguments": f"+trainer.max_time={NODE}",
    "a node in a list of the Trainer": f"+trainer.callbacks=[{NODE}]",
    "a node in a dictionary of the Trainer": f"+trainer.callbacks={{a: {{b: [{NODE}]}}}}",
    "a node among an optimizer's arguments": f"model.optimizer.lr={NODE}",
    "a node for a number": "data.n={_target_: os.getcwd}",
    "a node in a list": "data.n=[{_target_: os.getcwd}]",
    "a node in an unknown key": "+model.x={y: {_target_: os.getcwd}}",
    "a node among shared ones": "+shared.x={_target_: os.getcwd}",
    "a method of a layer": "model.net._target_=torch.nn.Module.apply",
    "a function of torch.nn": "model.net._target_=torch.nn.factory_kwargs",
    "an import of torch.nn": "model.net._target_=torch.nn.modules.module.OrderedDict",
    "a layer for the data": "data._target_=torch.nn.Identity",
    "a layer for an optimizer": "model.optimizer._target_=torch.nn.Identity",
    "a callback for the net": "model.net._target_=lightning.pytorch.callbacks.ModelCheckpoint",
    "a layer's node of another kind": "+model.loss.x={_target_: torch.nn.Conv2d, in_channels: {_target_: os.getcwd}}",
    "positional arguments": "+model.net._args_=[1]",
    "recursion off": "+model._recursive_=false",
    "a partial call of core": "model.scheduler._target_=eai.core.files.write_whole",
}


@pytest.mark.parametrize("override", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_meant_to_be_built_is_refused_and_nothing_is_called(
    override: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(*_: object, **__: object) -> None:
        pytest.fail("something was called")

    monkeypatch.setattr("hydra.utils.instantiate", called)
    with pytest.raises(ConfigError, match=r"^(data|model|trainer|shared)\S*: "):
        prepare("task=assimilation", override)


def test_function_is_built_where_its_result_belongs() -> None:
    for graph, works in (("chord_radius", True), ("Graph", True), ("stencil_offsets", False)):
        target = f"eai.tasks.dynamics.graphs.{graph}"
        if works:
            assert trusted("model.net.graph", target, (Graph,))
        else:
            with pytest.raises(ConfigError, match="does not exist"):
                trusted("model.net.graph", target, (Graph,))


@pytest.mark.parametrize(
    ("key", "target", "message"),
    [
        ("scheduler", "torch.optim.lr_scheduler.LambdaLR", "needs a function"),
        ("scheduler", "torch.optim.lr_scheduler.MultiplicativeLR", "needs a function"),
        ("scheduler", "torch.optim.lr_scheduler.ChainedScheduler", "needs other schedulers"),
        ("optimizer", "torch.optim.LBFGS", "one gradient per step"),
        ("optimizer", "torch.optim.SparseAdam", "one gradient per step"),
    ],
)
def test_schedule_or_optimizer_that_cannot_work_is_refused_in_one_line(key: str, target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.{key}\._target_: .*{message}"):
        prepare("task=assimilation", f"model.{key}._target_={target}")


def test_unknown_key_of_an_optimizer_that_takes_any_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model\.optimizer\.weigth_decay: unknown key; did you mean 'weight_decay'"):
        prepare("task=cycling", "+model.optimizer.weigth_decay=0.1")


@pytest.mark.parametrize(
    "scheduler",
    ["lr_scheduler.MultiStepLR, milestones: [1, 2]", "lr_scheduler.CyclicLR, base_lr: 0.001, max_lr: 0.1",
     "swa_utils.SWALR, swa_lr: 0.01", "lr_scheduler.OneCycleLR, max_lr: 0.1, total_steps: 10",
     "lr_scheduler.ExponentialLR, gamma: 0.9", "lr_scheduler.ReduceLROnPlateau"],
)  # fmt: skip
def test_schedulers_of_torch_can_be_configured(scheduler: str) -> None:
    node = f"{{_target_: torch.optim.{scheduler}, _partial_: true}}"
    cfg = resolve(composed("train", ["task=assimilation", "~model.scheduler", f"+model.scheduler={node}"]))
    check_experiment(cfg)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    made = build(cfg.model, "scheduler")(optimizer)
    assert type(made).__name__ == scheduler.partition(",")[0].partition(".")[2]


def test_hydra_itself_refuses_a_target_outside_the_whitelist() -> None:
    cfg = composed("train", ["task=assimilation", "model.net._target_=os.getcwd"])
    with pytest.raises(ConfigError, match=r"os\.getcwd"):
        build(resolve(cfg), "model")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data=recovery/varied", "data/recovery=varied"),
        ("data=recovery/varied,recovery/fields", "data/recovery=varied,fields"),
        ("model=a/x,b/y", "model=a/x,b/y"),
        ("data.path=a/b", "data.path=a/b"),
        ("task=dynamics", "task=dynamics"),
        ("-m", "-m"),
    ],
)
def test_group_choice_with_a_folder_takes_the_form_that_hydra_matches(typed: str, meant: str) -> None:
    assert split_group_choice(typed) == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("model.net={_target_: lab.Net, width: 3}", ["~model.net", "+model.net={_target_: lab.Net, width: 3}"]),
        ("model.net={_target_:a.B},{_target_:a.C}", ["~model.net", "+model.net={_target_:a.B},{_target_:a.C}"]),
        ("model.net={width: 3}", ["model.net={width: 3}"]),
        ("+model.x={_target_: a.B}", ["+model.x={_target_: a.B}"]),
        ("model.net.width=3", ["model.net.width=3"]),
    ],
)
def test_node_given_whole_replaces_the_former_one(typed: str, meant: list[str]) -> None:
    assert replace_node(typed) == meant


def test_paths_become_absolute_but_those_of_packages_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for typed, meant in [
        ("package:iris_sample_data/sample_data/a.nc", "package:iris_sample_data/sample_data/a.nc"),
        ("folder/*.nc", str(tmp_path / "folder/*.nc")),
        ("~/a.nc", str(tmp_path / "home/a.nc")),
    ]:
        assert portable(OmegaConf.create({"data": {"path": typed}})).data.path == meant
