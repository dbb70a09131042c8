"""What `editr1 doctor` says without a run: versions, devices, disk, extras, judges. No weights are loaded."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from editr1 import __version__
from editr1.errors import UserError, collect, first_line

GIB = 2**30
LIBRARIES = ("torch", "diffusers", "transformers", "peft")
DEVELOPERS = "dev"  # the extra of those who work on editr1 itself
DRIVER = Path("/proc/driver/nvidia/version")
FULL = 1.0  # GiB of disk below which a run does not go far


@dataclass
class Machine:
    """What was found.

    Attributes:
        facts: Sections of facts, each by name.
        faults: What is wrong, and how to mend it.
    """

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def examine_machine(judges: Sequence[str]) -> Machine:
    """Look at this machine, and ask each of the judges one question.

    Args:
        judges: As of `--judge`.

    Raises:
        UserError: The words for a judge mean none.
    """
    machine = Machine()
    machine.facts["versions"] = {"python": platform.python_version(), "editr1": __version__, **_installed(LIBRARIES)}
    _look_at_packages(machine)
    _look_at_devices(machine)
    _look_at_disk(machine, Path.cwd())
    if judges:
        machine.facts["judges"] = {}
    for text in judges:
        _ask_judge(machine, text)
    return machine


def _installed(names: Sequence[str]) -> dict[str, str | None]:
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    """The version of an installed package; None if it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _look_at_packages(machine: Machine) -> None:
    """Needed packages that are missing or of another version are faults; those of extras may be missing."""
    try:
        texts, extras = requires("editr1") or [], metadata("editr1").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        machine.faults.append("editr1 is not installed, so what it needs is not known: pip install it")
        return
    needs = [Requirement(text) for text in texts]
    for problem in _problems(need for need in needs if _belongs(need, "")):
        machine.faults.append(f"{problem}: pip install -U editr1")
    machine.facts["extras"] = {}
    for extra in extras:
        if extra != DEVELOPERS:
            problems = [*_problems(need for need in needs if _belongs(need, extra) and not _belongs(need, ""))]
            get = f"{', '.join(problems)}: pip install 'editr1[{extra}]'"
            machine.facts["extras"][extra] = get if problems else "present"


def _belongs(need: Requirement, extra: str) -> bool:
    """Whether a requirement holds here, with an extra."""
    return need.marker is None or need.marker.evaluate({"extra": extra})


def _problems(needs: Iterator[Requirement]) -> Iterator[str]:
    """Why requirements are not met."""
    for need in needs:
        found = _version(need.name)
        if found is None:
            yield f"{need.name} is missing"
        elif not need.specifier.contains(found, prereleases=True):
            yield f"{need.name} {found} is not {need.specifier}"


def _look_at_devices(machine: Machine) -> None:
    """Free and whole memory of the CPU and of each GPU; a GPU that torch does not use is a fault."""
    try:
        import torch

        from editr1.devices import free_memory_of, memory_of
    except (ImportError, OSError) as error:
        machine.faults.append(f"torch cannot be imported ({first_line(error)}): pip install -U torch")
        return
    names = {"cpu": platform.machine()}
    names |= {f"cuda:{i}": torch.cuda.get_device_properties(i).name for i in range(torch.cuda.device_count())}
    devices = machine.facts["devices"] = {}
    for place, name in names.items():
        device = torch.device(place)
        try:
            free, whole = free_memory_of(device) / GIB, memory_of(device) / GIB
        except RuntimeError as error:
            machine.faults.append(f"{place} ({name}) cannot be used: {first_line(error)}; see nvidia-smi")
            continue
        devices[place] = {"name": name, "free_gib": round(free, 1), "memory_gib": round(whole, 1)}
    if len(names) == 1 and DRIVER.exists():
        build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built for the CPU alone"
        machine.faults.append(
            f"there is an NVIDIA driver, and torch {torch.__version__} sees no GPU (it {build}): install the torch of "
            "your driver (pytorch.org/get-started), and see nvidia-smi and CUDA_VISIBLE_DEVICES"
        )


def _look_at_disk(machine: Machine, folder: Path) -> None:
    """Free space where runs and downloaded weights go."""
    from huggingface_hub.constants import HF_HUB_CACHE

    machine.facts["disk"] = {}
    for name, place in {"working folder": folder, "cache of the hub": Path(HF_HUB_CACHE)}.items():
        there = next(path for path in (place, *place.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free / GIB
        machine.facts["disk"][name] = {"path": str(place), "free_gib": round(free, 1)}
        if free < FULL:
            machine.faults.append(f"{place} has {free:.2f} GiB free: make room, or work elsewhere")


def _ask_judge(machine: Machine, text: str) -> None:
    """Whether a judge answers, with log-probabilities if its method reads them; of a folder, whether it is whole."""
    if "@" in text.partition("?")[0] and "://" in text:
        raise UserError("--judge: the URL holds a user or a password; put the key into the environment instead")
    from editr1.judges.check import check_judge
    from editr1.judges.open import check_processor, parse_judge
    from editr1.training.preflight import sample_requests

    settings = parse_judge(f"openai:{text}" if text.startswith(("http://", "https://")) else text)
    faults = check_judge(settings, sample_requests(None))
    if not faults and not settings.endpoints:
        with collect(faults):
            check_processor(settings)
    place = ", ".join(settings.endpoints) or settings.name
    works = "does not work" if faults else "answers" if settings.endpoints else "its files are whole"
    machine.facts["judges"][place] = f"{settings.name}, {settings.method}: {works}"
    machine.faults += faults
