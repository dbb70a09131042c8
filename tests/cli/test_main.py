import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from editr1 import __version__
from editr1.cli import main as cli
from editr1.errors import UserError
from editr1.files import read_lines
from editr1.training.distributed import World
from tests.judges.tiny_judge import build_tiny_judge

HEAVY = ("torch", "diffusers", "transformers", "numpy")


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def preset(tiny_editor_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny editor, a tiny judge and two pictures."""
    folder = tmp_path_factory.mktemp("cli")
    lines = []
    for i, colour in enumerate(["red", "blue", "green"]):
        Image.new("RGB", (32, 32), colour).save(folder / f"{i}.png")
        lines.append(json.dumps({"source": f"{i}.png", "instruction": "add a cat", "task": "add"}))
    (folder / "data.jsonl").write_text("\n".join(lines))
    config = {
        "editor": {"path": str(tiny_editor_path), "dtype": "float32", "device": "cpu", "pixels": 1024},
        "judge": {"path": str(build_tiny_judge(folder / "judge"))},
        "data": {"path": str(folder)},
        "rollout": {"group_size": 2, "groups_per_step": 2, "steps": 2},
        "algorithm": {"filter": "off", "old_rate": 0.3, "std": "group"},
        "adapter": {"rank": 2},
        "steps": 4,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


def wait_for_row(out: Path) -> None:
    for _ in range(6000):
        if (out / "metrics.jsonl").exists() and read_lines(out / "metrics.jsonl"):
            return
        time.sleep(0.1)
    raise TimeoutError


STOPPABLE = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests themselves may run under nohup
def load(*arguments):
    print("loading", flush=True)
    time.sleep(300)
{slow}
from editr1.cli.entry import main
main()
"""
LOADING = STOPPABLE.format(
    slow="""
import editr1.config.loading
editr1.config.loading.load_config = load
"""
)
IMPORTING = STOPPABLE.format(
    slow="""
class Slow:
    def find_spec(self, name, *others):
        return load() if name == "editr1.cli.main" else None
sys.meta_path.insert(0, Slow())
"""
)


@pytest.mark.parametrize("program", [LOADING, IMPORTING], ids=["run", "program"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_a_run_or_the_program_is_loaded_ends_it_with_a_line(
    number: signal.Signals, program: str
) -> None:
    command = [sys.executable, "-c", program, "train", "toy"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None and run.stdout.readline() == "loading\n"
    run.send_signal(number)
    assert (run.communicate(timeout=60)[1], run.returncode) == ("editr1: stopped\n", 130)


def test_a_signal_that_nohup_ignores_stops_nothing() -> None:
    nohup = LOADING.replace("SIG_DFL", "SIG_IGN")
    command = [sys.executable, "-c", nohup, "train", "toy"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None and run.stdout.readline() == "loading\n"
    run.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        run.communicate(timeout=2)
    run.send_signal(signal.SIGTERM)
    assert run.communicate(timeout=60)[1] == "editr1: stopped\n"


def test_a_run_that_is_stopped_and_started_again_equals_one_that_is_not(preset: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "editr1", "train", str(preset), f"out={tmp_path / 'a'}", "steps=500"]
    stopped = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for_row(tmp_path / "a")
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate(timeout=600)
    assert stopped.returncode == 130
    assert "Traceback" not in said and "run the same command again to go on" in said
    done = len(read_lines(tmp_path / "a" / "metrics.jsonl"))

    folders = []
    for name in "ab":
        code, printed, said = invoke("train", str(preset), f"out={tmp_path / name}", f"steps={done + 1}")
        assert code == 0, said
        folders.append(Path(printed.strip()))
    assert [folder.name for folder in folders] == [f"step_{done + 1:06d}"] * 2
    for file in sorted(folders[0].rglob("*.safetensors")):
        one, other = load_file(file), load_file(folders[1] / file.relative_to(folders[0]))
        assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)
    rows = [[row["reward_mean"] for row in read_lines(tmp_path / name / "metrics.jsonl")] for name in "ab"]
    assert rows[0] == rows[1] and len(rows[0]) == done + 1


def test_help_and_version_import_nothing_heavy() -> None:
    code = f"""
import sys
from typer.testing import CliRunner
from editr1.cli.main import app
for arguments in (["--help"], ["train", "--help"], ["demo", "--help"], ["toy", "build", "--help"], ["--version"]):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
print(result.output.strip(), [name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"editr1 {__version__} []"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "toi"], "cannot read the config 'toi'"),
        (["train", "toy", "algorithm.kll=3"], "did you mean algorithm.kl?"),
        (["train", "toy", "steps"], "must look like section.key=value"),
        (["train", "toy", "editor.path=/nowhere"], "editor.path='/nowhere'"),
        (["train", "toy", "editor.path=toy:nothing"], "no toy model is called 'nothing'"),
        (["toy", "sample", "--split", "none"], "split must be one of"),
        (["toy", "sample", "--count", "1", "--out", f"{__file__}/toy.png"], "cannot write"),
        (["toy", "build", "--out", f"{__file__}/toy"], "cannot make the folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments: list[str], said: str) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and err.startswith("editr1: ") and said in err


def test_toy_build_leaves_the_processs_numbers_as_they_were_even_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editr1.toy_models import recipe

    def fail(*args: object, **kwargs: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(recipe, "train_all", fail)
    assert invoke("toy", "build", "--out", str(tmp_path / "toy"))[0] == 2
    assert sys.float_info.min / 2 > 0  # the smallest numbers are not flushed to 0


def test_without_resvg_the_toy_world_says_in_one_line_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from editr1.toy.scene import sprite

    monkeypatch.setitem(sys.modules, "resvg_py", None)
    sprite.cache_clear()
    error = "editr1: drawing the toy world needs resvg-py: pip install 'editr1[toy]'\n"
    assert invoke("toy", "sample", "--out", "never.png") == (2, "", error)


def test_every_command_turns_errors_and_interruption_into_exit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    from editr1.cli import demo

    for error, expected in (
        (UserError("wrong"), (2, "editr1: wrong\n")),
        (KeyboardInterrupt(), (130, "editr1: stopped\n")),
    ):

        def fail(error: BaseException = error, **arguments: object) -> None:
            raise error

        monkeypatch.setattr(demo, "run_demo", fail)
        code, _, err = invoke("demo")
        assert (code, err) == expected


def test_the_demo_gets_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    from editr1.cli import demo

    given: dict[str, object] = {}
    monkeypatch.setattr(demo, "run_demo", lambda **arguments: given.update(arguments))
    assert invoke("demo", "--out", "x", "--seed", "3", "--minutes", "2.5", "--editor", "kontext")[0] == 0
    assert given == {"out": Path("x"), "seed": 3, "minutes": 2.5, "editor": "kontext", "world": World(timeout=1800.0)}


def test_report_prints_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from editr1.report import run as report

    monkeypatch.setattr(report, "write_report", lambda run: run / "report.html")
    assert invoke("report", "runs/a") == (0, "runs/a/report.html\n", "")


def test_toy_sample_draws_a_picture(tmp_path: Path) -> None:
    assert invoke("toy", "sample", "--out", str(tmp_path / "a.png"), "--count", "2")[:2] == (
        0,
        f"{tmp_path / 'a.png'}\n",
    )
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (2 * (2 * 160 + 24), 160 + 44)


def test_judge_score_prints_score_probabilities_and_prompt(tmp_path: Path) -> None:
    for name, colour in {"before": "red", "after": "blue"}.items():
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    images = [str(tmp_path / "before.png"), str(tmp_path / "after.png")]
    code, out, _ = invoke("judge", "score", *images, "Remove the cat.", "--json")
    report = json.loads(out)
    shares = report["probabilities"]
    assert code == 0 and sum(shares.values()) == pytest.approx(1)
    assert report["score"] == pytest.approx(sum(int(digit) * share for digit, share in shares.items()) / 5)
    assert report["judge"] == "judge:score_logit:brief-1/prefix" and "<image>" in report["prompt"][0]
    code, out, _ = invoke("judge", "score", *images, "Remove the cat.", "--judge", "toy?method=yes_no")
    assert code == 0 and "yes" in out and "prompt       Judge an image edit." in out
    code, out, _ = invoke("judge", "score", *images, "go", "--reference", images[0], "--reference", images[1])
    assert code == 0 and "Reference 1: <image> Reference 2: <image> Edit: <image>" in " ".join(out.split())


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ("toy?method=magic", "--judge toy: method: Input should be"),
        ("openai:http://127.0.0.1:9/v1", "--judge openai:http://127.0.0.1:9/v1: judge.model must say"),
        ("openai:http://127.0.0.1:9/v1?model=m&tries=1", "no score: "),
        ("nowhere", "judge: no folder at nowhere"),
    ],
)
def test_a_judge_that_cannot_score_is_one_line_and_code_2(tmp_path: Path, judge: str, words: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    code, _, error = invoke("judge", "score", str(tmp_path / "a.png"), str(tmp_path / "a.png"), "go", "--judge", judge)
    assert code == 2 and "Traceback" not in error
    assert error.strip().splitlines()[-1].startswith(f"editr1: {words}")


def test_judge_commands_refuse_wrong_input_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for arguments, words in {
        ("score", str(tmp_path / "text.png"), str(tmp_path / "text.png"), "go"): "cannot read the picture",
        ("agree", str(tmp_path / "none.jsonl")): "none.jsonl",
        ("agree", "toy", "--methods", "magic"): "--methods magic: there are score_logit",
        ("serve", "--model", str(tmp_path / "none")): "no folder at",
        ("arena", str(tmp_path / "none"), str(tmp_path)): "holds no evaluation",
    }.items():
        code, _, error = invoke("judge", *arguments)
        assert code == 2 and words in error.strip().splitlines()[-1], error
