"""Every YAML below conf/ is found by glob, composes, and runs two batches."""

from __future__ import annotations

import re
import statistics
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from eai.core.cli import CONFIG_DIR
from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import resolve
from eai.core.files import read_json
from tests.core.run.children import trained
from tests.runs import Train, assert_say_what_to_see, composed

CONF = Path(CONFIG_DIR)
TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SMALL = ["trainer=debug"]
# Minutes a seed; other experiments, or tests/tasks, train the same networks on such data for less.
LONG = {
    "lorenz96_enkf", "lorenz96_sparse", "apebench_burgers", "apebench_kdv", "apebench_ks", "dynamics_long",
    "assimilation_long", "assimilation_temperature", "recovery_varied_block", "recovery_varied_pixels",
}  # fmt: skip


def overrides_of(path: Path) -> list[str]:
    """The command line that uses one YAML, with what its comment `# Needs:` names."""
    name = path.relative_to(CONF).with_suffix("")
    group, *rest = name.parts
    needed = re.search(r"^# Needs: (.*)$", path.read_text(), re.MULTILINE)
    needs = needed[1].split() if needed else []
    if group in ("data", "model", "loss"):
        return [f"task={rest[0]}", f"{group}/{rest[0]}={rest[1]}", *needs]
    if name.parent.name == "system":  # a part of data, which has its size; the truth may have another
        return [*needs, f"shared/system@data.true_system={name.stem}"]
    return [f"{'/'.join(name.parts[:-1])}={name.stem}", *needs]


def few_samples(data: DictConfig) -> list[str]:
    """Overrides that leave a few samples in each split, where the data have a number of them."""
    names = ("n_train", "n_val", "n_test", "n_extrapolation")
    few = [f"data.{name}=16" for name in names if name in data]
    cheap = {"substeps": 1, "finer": 1} if "finer" in data else {"level": 1, "width": 0.6} if "level" in data else {}
    few += [f"data.{name}={value}" for name, value in cheap.items()]
    if data.get("network", {}).get("p", 0) > 100:
        few += ["data.network.p=20", "data.network.withheld=2"]
    if "harmonics" in data:  # of a file: short periods at its end
        few += ["data.nt_test=5", "data.val_share=0.07", "data.test_share=0.07"]
    if "background" in data:  # of a file: a part of its grid
        few += ["data.n.latitude=[30,50]", "data.n.longitude=[240,262]"]
    if "spin_up" in data:  # cycles: few of them, and short
        sizes = {"n_val": 3, "n_test": 3, "windows": 2, "spin_up": 2, "steps_val": 8, "steps_test": 8}
        few = [f"data.{name}={size}" for name, size in sizes.items()]
    return few


FILES = sorted(path for path in CONF.rglob("*.yaml") if path.parent != CONF)


@pytest.fixture(scope="session")
def claims(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder of what is run already, for all processes of this session."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "claims"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_yaml_runs_two_batches(
    path: Path, train: Train, tmp_path: Path, claims: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.parent.name == "logger":
        monkeypatch.chdir(tmp_path)  # where its store will be
    cfg = resolve(composed("train", overrides_of(path)))
    experiment = check_experiment(cfg)
    if path.is_relative_to(CONF / "hydra"):
        pytest.skip("composed and checked; tests/slurm runs it")
    if experiment.accelerator.accelerator == "gpu" and not torch.cuda.is_available():
        pytest.skip("composed and checked; running it needs a GPU")
    small = [] if path.parent.name == "trainer" and path.stem == "debug" else SMALL
    # Tasks draw their figures too; what is a variant of them need not do so again.
    drawn = path.parent.name == "task"
    configuration = f"{drawn} {OmegaConf.to_yaml(cfg)}".encode()
    try:
        (claims / sha256(configuration).hexdigest()).mkdir()
    except FileExistsError:
        return  # composed and checked; another YAML with the same configuration is run
    if cfg.data.get("nt_test", 0) > 100:
        small = [*small, "data.nt=9", "data.nt_test=12"]
        if path.parent == CONF / "experiment":
            scores = {"monitor.score": "val/nrmse", "headline.score": "test/nrmse", "expect": "null"}
            small += ["model.leads=[1,3]", *(f"{key}={value}" for key, value in scores.items())]
    run = train(*overrides_of(path), *small, *few_samples(cfg.data), f"figures.at_end={str(drawn).lower()}")
    assert read_json(run.status)["state"] == "COMPLETED"
    metrics, baselines = read_json(run.metrics), read_json(run.baselines)
    assert all(scores.keys() == metrics.keys() for scores in baselines.values())
    if drawn:
        assert experiment.headline.score in metrics.keys() & baselines[experiment.headline.baseline].keys()
        assert_say_what_to_see(read_json(run.figures / "captions.json"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_names_its_source_and_the_score_to_expect(name: str) -> None:
    expectation = check_experiment(resolve(composed("train", [f"experiment={name}"]))).expect
    assert expectation is not None
    assert expectation.source
    assert (expectation.at_most is None) != (expectation.at_least is None)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", sorted({*EXPERIMENTS} - LONG))
def test_every_experiment_reaches_its_score_as_the_median_of_its_seeds(name: str, tmp_path: Path) -> None:
    expectation = check_experiment(resolve(composed("train", [f"experiment={name}"]))).expect
    assert expectation is not None
    values: list[float] = []
    for seed in range(expectation.seeds):
        run = trained(tmp_path / f"seed{seed}", (f"experiment={name}", f"seed={seed}"))
        values.append(read_json(run.metrics)[expectation.score])
        if 2 * sum(map(expectation.met_by, values)) > expectation.seeds:
            return  # more than half of the seeds meet it, and with them the median of all
    assert expectation.met_by(statistics.median(values)), f"expected {expectation}, got {values}"
