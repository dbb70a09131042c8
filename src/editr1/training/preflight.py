"""All that can be known to be wrong with a run from its settings, files and servers, in one pass and in a few seconds.

The folder of the run, the data, files of editor and judge, device and memory, one question to a judge on a server, one
call of each further reward. Nothing here draws from the random generators of a run or leaves a file in its folder, and
nothing imports diffusers or transformers, which takes longer than all of this: see `model_check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image as Images
from PIL.Image import Image

from editr1.config.rewards import WHOLE_TASKS, mixed_of
from editr1.config.settings import Config, TrackerName
from editr1.data.forms import open_stored
from editr1.data.samples import EditDataset, EditSample, ItemLine, StoredDataset
from editr1.devices import memory_of, pick_device, pick_dtype
from editr1.editors.check import Weights, bytes_on_device, check_editor
from editr1.editors.lora.find import find_file
from editr1.errors import UserError, collect
from editr1.judges.base import JudgeRequest
from editr1.judges.check import check_judge, check_reward
from editr1.model_files import check_files, is_hub_name, parameters, tensor_sizes
from editr1.toy.assets import locate
from editr1.toy.tasks import TASKS
from editr1.training import checkpoint, run_files
from editr1.training.data_check import PictureCheck, describe, headers_of, repetitions
from editr1.training.data_record import DataRecord
from editr1.training.datasets import KINDS, open_dataset, open_datasets
from editr1.training.mask_check import Masks, faults_of_masks, mask_users, masks_in
from editr1.training.seal import read_state

GB = 1e9
SMALL = 256  # longest side of the pictures in questions
OURS = {value.partition("/")[0] for name, value in vars(run_files).items() if name.isupper()}
"""Names that a run gives to files and folders in its own."""


@dataclass
class Findings:
    """What a check finds.

    Attributes:
        facts: What was checked and how it is, by part of the run.
        warnings: What may be meant so.
        faults: What a run cannot start with, one line each.
        data: The data that users wrote, by part of the run.
        pictures: The pictures of the data, not looked at yet, by dataset.
        record: What is kept of the training data, if it is a folder.
        now: The part that is being checked.
    """

    facts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    data: dict[str, StoredDataset] = field(default_factory=dict)
    pictures: dict[str, PictureCheck] = field(default_factory=dict)
    record: DataRecord | None = None
    now: str = ""

    @contextmanager
    def part(self, name: str) -> Iterator[list[str]]:
        """Collects faults, a UserError too, under the name of a part that they do not name themselves."""
        self.now = name
        faults: list[str] = []
        with collect(faults):
            yield faults
        self.faults += [fault if fault.startswith(name) else f"{name}: {fault}" for fault in faults]


def check_run(config: Config, findings: Findings, most: int | None = None) -> None:
    """Add what is found of all but the pictures, which `Findings.pictures` looks at.

    Args:
        config: The run.
        findings: Receives it.
        most: Lines of the training data that are checked at most, as of `open_stored`; None for all.
    """
    with suppress(UserError):  # told below
        config = checkpoint.resolve(config)
    with findings.part("out"):
        findings.facts["out"] = check_out(config.out, config)
    if config.adapter.init is not None:
        with findings.part("adapter.init"):
            sum(tensor_sizes(find_file(config.adapter.init)))
    if config.memory.cache is not None:
        with findings.part("memory.cache"):
            check_writable(config.memory.cache, "memory.cache")
    with findings.part("trackers"):
        check_trackers(config.trackers)
    dataset = _check_data(config, findings, most)
    _check_machine(config, findings)
    find_strange_tasks(config, findings)
    _check_masks(config, findings)
    requests = sample_requests(dataset)
    if config.judge is not None:
        findings.facts["judge"] = f"{config.judge.name}, {config.judge.method}"
        with findings.part("judge") as faults:
            faults += check_judge(config.judge, requests)
    if config.watch is not None:
        findings.facts["watch"] = f"{config.watch.judge.name}, one of {config.watch.every} edits"
        with findings.part("watch.judge") as faults:
            faults += check_judge(config.watch.judge, requests)
    if config.preservation is not None and config.preservation.features is not None:
        with findings.part("preservation.features"):
            check_files(Path(config.preservation.features))
    for name, reward in config.rewards.items():
        findings.facts[f"rewards.{name}"] = f"{reward.kind}, weight {reward.weight:g}"
        with findings.part(f"rewards.{name}") as faults:
            faults += check_reward(reward, requests)


def check_out(out: Path, config: Config) -> str:
    """What the folder of the run holds.

    Raises:
        UserError: It cannot be made or written, holds something else, a run with other settings, or one without a whole
            checkpoint.
    """
    check_writable(out, "out")
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if names and not OURS & {*names}:
        raise UserError(f"out={out} holds other files ({', '.join(names[:3])}) and no run; choose an empty folder")
    checkpoint.refuse_lost(root := out / run_files.CHECKPOINTS)
    if (last := checkpoint.latest(root)) is None:
        return f"{out}, a new run"
    state = read_state(last)
    checkpoint.refuse_changes(out, state["config"], config)
    return f"{out}, goes on after step {state['step']}"


def check_trackers(names: Sequence[TrackerName]) -> None:
    """A UserError if one that the settings ask for is not installed; a run goes on without TensorBoard, the default."""
    for name in names:
        if name != "tensorboard" and find_spec(name) is None:
            raise UserError(f"trackers: {name} is not installed: pip install 'editr1[{name}]', or leave it out")


def check_writable(folder: Path, setting: str) -> None:
    """Refuse a folder that cannot be made or written."""
    where = f"{setting}={folder}"
    try:
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: there can be no such folder ({error}); choose another one") from error
    if not place.is_dir():
        kind = "a file" if place.exists() else "a link to nothing"
        raise UserError(f"{where}: {place} is {kind}; choose a folder")
    try:
        with TemporaryDirectory(prefix=".editr1-", dir=place):  # permissions alone do not tell, least of all to root
            pass
    except OSError as error:
        raise UserError(
            f"{where}: {place} cannot be written ({error.strerror}); choose another folder, or change its permissions"
        ) from error


def sample_requests(dataset: EditDataset | None) -> list[JudgeRequest]:
    """Three small edits to ask judges about: sources of the first items, or a grey picture; each is its own edit."""
    samples: list[EditSample] = []
    for index in range(min(3, 0 if dataset is None else len(dataset))):
        with collect([]):  # a picture that cannot be read is told by the check of the pictures
            assert dataset is not None, "there are items"
            samples.append(dataset[index])
    grey = EditSample("grey", Images.new("RGB", (SMALL, SMALL), "grey"), "Make the picture brighter.")
    samples = (samples or [grey]) * 3
    return [JudgeRequest(_smaller(sample), _small(sample.source)) for sample in samples[:3]]


def _smaller(sample: EditSample) -> EditSample:
    references = tuple(map(_small, sample.references))
    texts = (sample.instruction, sample.requirement, sample.task)
    return EditSample(sample.key, _small(sample.source), *texts, references)


def _small(image: Image) -> Image:
    copy = image.copy()
    copy.thumbnail((SMALL, SMALL))
    return copy


def _check_data(config: Config, findings: Findings, most: int | None) -> EditDataset | None:
    """The training data, if there is any; its lines and those of held-out items are checked."""
    training: EditDataset | None = None
    if config.data.kind in KINDS and config.data.path is not None:
        training = _check_lines("data", config.data.path, config, findings, most, KINDS[config.data.kind])
        if training is not None and not findings.faults:
            _compare_data(config, training, findings)
    else:
        with findings.part("data"):
            training = open_dataset(config.data)
            origin = "the toy world" if config.data.kind == "toy" else config.data.path
            findings.facts["data"] = f"{len(training)} items of {origin}"
            training[0]  # drawing it needs a package
    if config.evaluation is not None:
        if config.evaluation.data is not None:
            _check_lines("evaluation", config.evaluation.data, config, findings)
        elif training is not None and not findings.faults:
            with findings.part("evaluation"):
                part, rest = open_datasets(config, training)
                held = len(rest) if rest else 0
                findings.facts["evaluation"] = f"{held} held-out items, {len(part)} are left to train on"
    return training


def find_overlap(findings: Findings) -> None:
    """Warn of source pictures that are held out and trained on, by their content as far as it was looked at."""
    if {"data", "evaluation"} <= findings.data.keys():
        known = findings.pictures["data"].hashes | findings.pictures["evaluation"].hashes
        trained, heldout = (
            {known.get(source, source) for _, _, (source, *_) in findings.data[part].sample}
            for part in ("data", "evaluation")
        )
        if shared := len(trained & heldout):
            findings.warnings.append(f"evaluation: {shared} of its source pictures are in the training data too")


def find_strange_tasks(config: Config, findings: Findings) -> None:
    """Warn of tasks that the settings of rewards name, and none of the items that were looked at has."""
    known = {*TASKS} if config.data.kind == "toy" else set[str]()
    if "data" in findings.data:
        known = {line.task for line in findings.data["data"].lines}
    if not known:  # items of a function have not been looked at
        return
    named = {f"{name}.criteria_by_task": {*judge.criteria_by_task} for name, judge in config.judges.items()}
    for name, reward in mixed_of(config.judge, config.rewards).items():
        named["judge.weight_by_task" if name == "judge" else f"rewards.{name}.weight_by_task"] = {
            *reward.weight_by_task
        }
    for name, own in mask_users(config).items():
        named[f"{name}.whole_tasks"] = {*own.whole_tasks} - {*WHOLE_TASKS}
    for place, tasks in named.items():
        if strange := sorted(tasks - known):
            there = ", ".join(sorted(known)[:20])
            findings.warnings.append(f"{place}: no item has the task {strange[0]!r}; they have {there}")


def _check_masks(config: Config, findings: Findings) -> None:
    """Refuse masks that no item can have, and warn of those that some cannot have; stored edits need none."""
    if config.data.is_stored:
        return
    masks = Masks(1, 1, complete=True) if config.data.kind == "toy" else Masks()  # each item of the toy has one
    if "data" in findings.data:
        masks = masks_in(findings.data["data"].lines, len(findings.data["data"]))
    for text, sure in faults_of_masks(config, masks):
        (findings.faults if sure else findings.warnings).append(text)


def _check_lines(
    name: str,
    folder: Path,
    config: Config,
    findings: Findings,
    most: int | None = None,
    kind: type[ItemLine] = ItemLine,
) -> StoredDataset | None:
    """The dataset in a folder, without the lines that are wrong; None if there is none."""
    dataset: StoredDataset | None = None
    with findings.part(name) as faults:
        dataset = open_stored(folder, config.data.root, faults, most, kind)
        findings.facts[name], findings.data[name] = f"{folder}: {describe(dataset)}", dataset
        findings.pictures[name] = PictureCheck(dataset.pictures, headers_of(dataset.folder), hashed=True)
        if again := repetitions(dataset):
            findings.warnings.append(f"{name}: {again} items repeat the picture and instruction of another")
    return dataset


def _compare_data(config: Config, dataset: StoredDataset, findings: Findings) -> None:
    """Compare the data with the record of the run, if that goes on and its data may not have changed."""
    record = findings.record = DataRecord(config.out / run_files.DATA, dataset, findings.pictures["data"])
    if config.data.changed or checkpoint.latest(config.out / run_files.CHECKPOINTS) is None:
        return
    if not record.file.exists():
        findings.warnings.append(
            f"data: the run has no {record.file}, as those of older versions: what changed before now is not noticed"
        )
        return
    with findings.part("data"):
        record.compare()


def _check_machine(config: Config, findings: Findings) -> None:
    """Device, the editor's files, and whether the weights fit."""
    device, weights = torch.device("cpu"), Weights()
    with findings.part("editor"):
        device = pick_device(config.editor.device)
    dtype = pick_dtype(config.editor.dtype, device)
    with findings.part("editor"):
        family, weights = check_editor(config.editor)
        name = family.name if family else "not known yet, its record is derived when it is loaded"
        findings.facts["editor"] = f"{config.editor.path}, {name}"
    sizes = {
        "the editor": bytes_on_device(weights, config.memory, dtype, config.parallel.shard),
        "judges": _judge_parameters(config) * dtype.itemsize,
    }
    need, have = sum(sizes.values()), memory_of(device)
    facts = [str(device), str(dtype).removeprefix("torch."), f"{have / GB:.0f} GB of memory"]
    findings.facts["device"] = ", ".join(facts + [f"weights of {need / GB:.3g} GB"] * bool(weights))
    if need > have:
        parts = " and ".join(f"{size / GB:.1f} GB of {name}" for name, size in sizes.items() if size)
        findings.faults.append(
            f"memory: weights of {parts} do not fit into the {have / GB:.1f} GB of {device}; see memory.quantize, "
            "memory.offload and parallel.shard, or put the judge on a server"
        )


def _judge_parameters(config: Config) -> int:
    """Parameters of the judges in this process; a fault of theirs is told elsewhere."""
    paths = {judge.path for judge in config.judges.values() if judge.path is not None}
    total = 0
    for path in paths:
        with collect([]):
            total += 0 if is_hub_name(path) else parameters(Path(locate(path)))
    return total


def look_at_pictures(
    checks: Sequence[PictureCheck], enough: Callable[[], bool], on_picture: Callable[[str | None], None]
) -> bool:
    """Look at all pictures that are left, until it is enough; whether none are left."""
    return all(check.run(enough, on_picture) for check in checks)
