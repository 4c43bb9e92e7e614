"""A configuration builds what is meant to be built, and calls nothing else."""

from __future__ import annotations

import pytest
import torch

from eai.core.configuration.build import build
from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import resolve
from eai.core.configuration.trust import trusted
from eai.core.errors import ConfigError
from eai.tasks.dynamics.graphs import Graph
from tests.core.configuration.prepare import prepare
from tests.runs import composed

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
