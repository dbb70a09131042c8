"""The files in examples/cluster start what they say: the real torchrun and the real editr1 read their commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
import yaml
from torch.distributed.run import get_args_parser

from editr1.cli.main import app
from editr1.config.loading import load_config
from editr1.config.settings import Config

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "examples" / "cluster"
SLURM = {
    "SLURM_JOB_NODELIST": "node[3-4]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_CPUS_PER_TASK": "64",
    "SLURM_JOB_ID": "17",
}


def read(command: Sequence[str]) -> tuple[Any, Config]:
    """What torchrun understands of a command, and the config that `editr1 train` loads by the rest of it."""
    launch = get_args_parser().parse_args(command)
    assert launch.module and launch.training_script == "editr1"
    name, *arguments = launch.training_script_args
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    context = group.commands[name].make_context(name, arguments)
    assert name == "train"
    return launch, load_config(context.params["config"], context.params["overrides"])


def run(script: Path, folder: Path, *arguments: str) -> list[list[str]]:
    """The words of the commands that a batch script gives to srun or vllm, which here only write them down."""
    for name, action in (("srun", 'printf "%s\\n" "$@" "" >> said'), ("vllm", 'printf "%s\\n" "$@" "" >> said')):
        (folder / name).write_text(f"#!/bin/bash\n{action}\n")
        (folder / name).chmod(0o755)
    (folder / "scontrol").write_text("#!/bin/bash\nprintf 'node3\\nnode4\\n'\n")
    (folder / "scontrol").chmod(0o755)
    environment = {**os.environ, **SLURM, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-n", str(script)], check=True)
    subprocess.run(["bash", str(script), *arguments], check=True, cwd=folder, env=environment)
    return [block.split("\n") for block in (folder / "said").read_text().strip("\n").split("\n\n")]


def directives(script: Path) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script.read_text(), re.MULTILINE))


def yaml_of(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / name).read_text()))


def test_the_slurm_job_starts_one_torchrun_per_node_and_it_the_run(tmp_path: Path) -> None:
    script = CLUSTER / "train.sbatch"
    usage = re.search(r"^#   sbatch (?:--nodes=2) \S+ (.*)$", script.read_text(), re.MULTILINE)
    assert usage
    [[kill, program, *command]] = run(script, tmp_path, *shlex.split(usage[1]))
    assert (kill, program) == ("--kill-on-bad-exit=1", "torchrun")
    launch, config = read(command)
    assert (launch.nnodes, launch.nproc_per_node, launch.max_restarts) == ("2", "8", 3)
    assert (launch.rdzv_backend, launch.rdzv_endpoint, launch.rdzv_id) == ("c10d", "node3:29500", "17")
    assert config.judge is not None and config.judge.endpoints == ("http://node7:8000/v1",)


def test_a_slurm_job_is_told_to_end_before_its_time_is_over_and_ranks_get_most_of_it() -> None:
    script = CLUSTER / "train.sbatch"
    slurm = directives(script)
    assert slurm["ntasks-per-node"] == "1"  # torchrun starts the ranks
    before = int(slurm["signal"].removeprefix("TERM@"))
    timeout = re.search(r"TORCH_ELASTIC_SHUTDOWN_TIMEOUT=(\d+)", script.read_text())
    assert timeout and before - 60 >= int(timeout[1]) > 600


def test_the_judges_gpus_are_all_used_and_its_port_is_that_of_the_endpoint(tmp_path: Path) -> None:
    script = CLUSTER / "judge.sbatch"
    [[serve, model, *options]] = run(script, tmp_path)
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert (serve, model) == ("serve", "Qwen/Qwen2.5-VL-32B-Instruct")
    assert json.loads(given["--limit-mm-per-prompt"]) == {"image": 2}  # source and edit
    gpus = int(given["--tensor-parallel-size"]) * int(given["--data-parallel-size"])
    assert gpus == int(directives(script)["gpus-per-node"])
    assert f':{given["--port"]}/v1"' in (CLUSTER / "train.sbatch").read_text()


def test_the_kubernetes_job_starts_the_run_on_all_gpus_of_its_nodes() -> None:
    runtime, job = yaml_of("trainjob.yaml")
    assert {each["apiVersion"] for each in (runtime, job)} == {"trainer.kubeflow.org/v1alpha1"}
    assert job["spec"]["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": runtime["kind"],
        "name": runtime["metadata"]["name"],
    }
    trainer = job["spec"]["trainer"]
    # the fields of Kubeflow Trainer 2.3's TrainJob
    assert trainer.keys() <= {"args", "command", "env", "image", "numNodes", "numProcPerNode", "resourcesPerNode"}
    assert trainer["command"] == ["torchrun"]
    launch, config = read(trainer["args"])
    assert launch.rdzv_backend == "c10d" and launch.rdzv_endpoint == "$(PET_MASTER_ADDR):$(PET_MASTER_PORT)"
    assert str(trainer["numProcPerNode"]) == trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"]
    [node] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert node["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    pod = node["template"]["spec"]["template"]["spec"]
    assert (node["name"], pod["containers"][0]["name"]) == ("node", "node")
    mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    assert mounts.keys() == {each["name"] for each in pod["volumes"]}
    assert config.data.path is not None
    assert all(path.is_relative_to(mounts["work"]) for path in (config.out, config.data.path))
    [timeout] = [each["value"] for each in trainer["env"] if each["name"] == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]
    assert int(timeout) < pod["terminationGracePeriodSeconds"]


def test_the_kubernetes_judge_is_the_one_that_the_job_asks() -> None:
    deployment, service = yaml_of("judge.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    given = dict(each.removeprefix("--").split("=", 1) for each in container["args"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == given["tensor-parallel-size"]
    assert json.loads(given["limit-mm-per-prompt"]) == {"image": 2}
    _, config = read(yaml_of("trainjob.yaml")[1]["spec"]["trainer"]["args"])
    assert config.judge is not None and config.judge.model == given["model"]
    [port] = service["spec"]["ports"]
    assert port["targetPort"] == container["ports"][0]["containerPort"]
    assert config.judge.endpoints == (f"http://{service['metadata']['name']}:{port['port']}/v1",)
