"""What a configuration may name as ``_target_``: each class where its kind belongs, and nothing else.

A run directory or an experiment file may come from a stranger. Every target of a configuration is judged here before
any of them is called; :func:`whitelist` is Hydra's own, second fence. Packages of the user's own are trusted outside of
configurations, see :mod:`eai.core.packages`.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import typing
from collections.abc import Callable
from typing import Any, cast

from eai.core.errors import ConfigError
from eai.core.packages import how_to_trust, package_of, trusted_packages

# Our packages whose public classes, and functions that return what is expected, may be built.
OURS = ("eai.tasks", "eai.variational", "eai.systems")
# Libraries whose public layers and models may be built where a module belongs.
LIBRARIES = ("torch.nn", "torch_geometric.nn", "neuralop.models")
_EXTRAS = {"neuralop": "operators"}  # of a library that need not be installed
_TRAINER = "lightning.Trainer"
# Callbacks that neither write files of their own nor do what a key of the configuration does.
_CALLBACKS, _SWA = "lightning.pytorch.callbacks", "eai.core.learn.averaging.SWA"
_USABLE_CALLBACKS = (
    *(
        f"{_CALLBACKS}.{name}"
        for name in ("DeviceStatsMonitor", "EMAWeightAveraging", "EarlyStopping", "LearningRateMonitor", "ModelSummary",
                     "RichModelSummary", "Timer", "WeightAveraging")
    ),
    _SWA,
)  # fmt: skip
_LOGGERS = (
    "eai.core.run.loggers.CSVLogger",
    "lightning.pytorch.loggers.MLFlowLogger",
    "lightning.pytorch.loggers.WandbLogger",
)
# Trusted one by one: their modules hold more than a configuration needs.
_ALONE = (_TRAINER, _SWA, *_LOGGERS)
_OPTIM, _SCHEDULERS = "torch.optim", "torch.optim.lr_scheduler"
OPTIMIZERS = "pytorch_optimizer"  # a library of further ones, as SOAP
_OPTIM_MODULES = (_OPTIM, _SCHEDULERS, "torch.optim.swa_utils", OPTIMIZERS)
_ONE_GRADIENT = "the training step takes one gradient per step"
_UNUSABLE = {
    "torch.optim.LBFGS": f"{_ONE_GRADIENT}; LBFGS needs several",
    "torch.optim.SparseAdam": f"{_ONE_GRADIENT}, which is dense; SparseAdam needs a sparse one",
    **{
        f"{_SCHEDULERS}.{name}": f"{name} needs a function, which a configuration cannot hold"
        for name in ("LambdaLR", "MultiplicativeLR")
    },
    **{
        f"{_SCHEDULERS}.{name}": f"{name} needs other schedulers, which a configuration cannot hold"
        for name in ("ChainedScheduler", "SequentialLR")
    },
}


def whitelist() -> tuple[str, ...]:
    """Patterns of what Hydra may call for a run."""
    packages = (*OURS, *LIBRARIES, _OPTIM, OPTIMIZERS, *trusted_packages())
    return (*(f"{package}.*" for package in packages), _TRAINER, *_USABLE_CALLBACKS, *_LOGGERS)


def holds_no_nodes(target: str) -> bool:
    """Whether the arguments of ``target`` are plain values: so of the Trainer, callbacks, optimizers and schedules."""
    return target in _ALONE or target.rpartition(".")[0] in (*_OPTIM_MODULES, _CALLBACKS)


def root_kinds() -> dict[str, tuple[type, ...]]:
    """What is built at the top level: {key: classes}. Nodes below ``shared`` are of any kind."""
    import lightning
    from lightning.pytorch.loggers import Logger

    from eai.core.learn.data import DataModule
    from eai.core.learn.task import Task

    return {
        "data": (DataModule,),
        "model": (Task,),
        "trainer": (lightning.Trainer,),
        "shared": (),
        "callbacks": (lightning.Callback,),
        "logger": (Logger,),
    }


def trusted(key: str, target: Any, kinds: tuple[type, ...]) -> Callable[..., Any]:
    """Find the class or function that ``target`` names, without calling it.

    Args:
        key: of the node, for messages.
        target: the value of its ``_target_``.
        kinds: classes, one of which the result must be an instance of; empty: any class of ours, of a trusted package,
            or a layer.

    Raises:
        ConfigError: not a public class or function of ours, of a trusted package, of a library's layers, of torch.optim
            or the Trainer, or not of these kinds.
    """

    def refused(expected: str) -> ConfigError:
        return ConfigError(f"{key}._target_: expected {expected}, got {target!r}; refused")

    known = f"a class of {', '.join((*OURS, *LIBRARIES))}, {_OPTIM}, {OPTIMIZERS} or {_SCHEDULERS}"
    if not isinstance(target, str) or any(part.startswith("_") for part in target.split(".")):
        raise refused(known)
    module, _, name = target.rpartition(".")
    ours, package = _is_ours(module), package_of(target)
    if module == _CALLBACKS and target not in _USABLE_CALLBACKS:
        raise refused(f"one of {', '.join(_USABLE_CALLBACKS)}")
    if not (ours or package or module in (*LIBRARIES, *_OPTIM_MODULES, _CALLBACKS) or target in _ALONE):
        if told := how_to_trust(target):
            raise ConfigError(f"{key}._target_: {target!r} is refused: {told}")
        raise refused(known)
    if target in _UNUSABLE:
        raise ConfigError(f"{key}._target_: {_UNUSABLE[target]}")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        if (extra := _EXTRAS.get(module.partition(".")[0])) and isinstance(error, ModuleNotFoundError):
            told = f"{target!r} needs a package that is not installed ({error.name})"
            raise ConfigError(f"{key}._target_: {told}; pip install 'eai[{extra}]'") from error
        raise ConfigError(f"{key}._target_: {target!r} does not exist ({error})") from error
    except Exception as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(f"{key}._target_: the package of {target!r} cannot be imported ({told})") from error
    home = getattr(found, "__module__", None) or ""
    if (ours and home != module) or (package and not f"{home}.".startswith(f"{package}.")):
        raise refused("what its module defines itself, not what it imports")
    if not _fits(found, kinds, module, package is not None):
        raise refused(" or ".join(kind.__name__ for kind in kinds) if kinds else known)
    return cast(Callable[..., Any], found)


def _is_ours(module: str) -> bool:
    return module.startswith(tuple(f"{package}." for package in OURS))


def _fits(found: Any, kinds: tuple[type, ...], module: str, foreign: bool) -> bool:
    """Whether a call of ``found`` makes one of ``kinds``; of a trusted package's functions without hints it may."""
    if inspect.isfunction(found):
        made = hints_of(found).get("return")
        return (made is None and foreign) or (inspect.isclass(made) and (any(made is kind for kind in kinds)))
    if not inspect.isclass(found):
        return False
    if module in LIBRARIES:
        from torch.nn import Module

        return issubclass(found, kinds or Module) and issubclass(found, Module)
    return issubclass(found, kinds) if kinds else foreign or _is_ours(module)


def kinds_in(hint: Any) -> tuple[type, ...]:
    """The classes that nodes below a parameter may be built of, from its type hint: of a callable, what it returns."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is collections.abc.Callable:
        return kinds_in(arguments[-1]) if arguments else ()
    if inspect.isclass(origin) and not issubclass(origin, collections.abc.Collection):
        return (origin,) if origin.__module__ not in ("types", "typing") else _flat(arguments)
    if arguments:
        return _flat(arguments)
    plain = (bool, int, float, str, bytes, list, dict, tuple, type(None), object)
    return (hint,) if inspect.isclass(hint) and hint not in plain else ()


def _flat(hints: tuple[Any, ...]) -> tuple[type, ...]:
    return tuple(kind for hint in hints for kind in kinds_in(hint))


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Type hints of a function or of a class's constructor; empty where they cannot be evaluated, as torch's."""
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError):
        return {}
