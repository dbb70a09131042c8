"""Run the tests of all editors and write the outcome as docs/editors.md.

Usage: python scripts/editors_table.py docs/editors.md
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from editr1.editors.catalogue import catalogue

COLUMNS = {
    "probe": "test_the_probe_agrees_with_the_record_and_every_call_is_replayed_bit_for_bit",
    "rollout": "test_a_rollout_is_what_the_stock_pipeline_gives",
    "replay": "test_the_clean_latents_continue_the_last_call_by_its_velocity",
    "LoRA step, save, load": "test_a_lora_step_changes_the_policy_alone_and_is_loaded_by_the_stock_loader",
    "full step, save, load": "test_a_full_step_changes_the_policy_and_is_loaded_by_the_denoisers_class",
    "record derived": "test_the_record_can_be_derived_without_knowing_it",
}
HEAD = """# Editors

The tests build a tiny pipeline of each class below from its real parts, save it, load it and check that:

- the probe agrees with its record, and every denoiser call of a rollout is replayed bit for bit (probe);
- a rollout is the stock pipeline's own call (rollout);
- the replayed velocity of the last call leads to the clean latents (replay);
- one DiffusionNFT step with a LoRA, and one with all weights, can be saved and loaded with equal outputs;
- `editr1 editor probe` derives the record by itself (record derived; "-" if the pipeline's signature does not say how
  to call it).

"Sources" is the number of source images that a pipeline takes.

JoyImage-Edit, Kandinsky 5 and OmniGen draw the source's latents at random for each edit; editr1 takes the mean, so that
all edits of a group share their source. Classifier-free guidance is off unless `editor.guidance` is above 1; then
rollouts are guided, and the conditional velocity is trained. A source keeps its shape: `editor.pixels` is the area, and
each side is rounded to the multiple that the pipeline takes.

Pipelines cut a prompt that is longer than their text encoder takes: 512 tokens for FLUX.1 (T5), FLUX.2, Z-Image,
LongCat, Qwen-Image and Kandinsky 5, 256 for Stable Diffusion 3, 3,000 for Fibo-Edit, 4,096 for JoyImage, template
included, or `editor.text_tokens`. Here such an instruction is one line with both numbers, from `check`, at the start of
a run, and in `edit` and `eval`. CLIP sees the first 77 tokens of any prompt, for its pooled vector; that is how these
models were trained. Qwen-Image-Edit and OmniGen cut nothing; no text has more than 3,000 bytes.

`python scripts/editors_table.py docs/editors.md` runs the tests and writes this page.
"""
TAIL = """
## Not supported

| Pipeline | Why |
| --- | --- |
"""
OTHER = """
## A pipeline that is not listed

`editr1 editor probe PATH` runs it a few times and derives its record; `editr1 train` does the same at its start. If the
pipeline's signature does not say how to call it, the probe cannot derive a record: write one in
`src/editr1/editors/families.py`.
"""


def outcomes() -> dict[tuple[str, str], str]:
    """Outcome by test and pipeline: "yes" or "FAILED"."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "matrix.xml"
        command = [sys.executable, "-m", "pytest", "-q", "tests/editors/test_matrix.py", f"--junitxml={report}"]
        subprocess.run(command, check=False)
        outcome = {}
        for case in ElementTree.parse(report).iter("testcase"):
            if match := re.fullmatch(r"(\w+)\[(\w+)\]", case.attrib["name"]):
                outcome[match[1], match[2]] = "FAILED" if len(case) else "yes"
        return outcome


def main(out: Path) -> None:
    """Write the page."""
    outcome = outcomes()
    rows = catalogue()
    names = ["Pipeline", "Family", "Sources", *COLUMNS]
    lines = [HEAD, f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    for row in rows:
        if row["supported"]:
            sources = "any" if row["source_images"] is None else row["source_images"]
            cells = [outcome.get((test, row["pipeline"]), "-") for test in COLUMNS.values()]
            lines.append(f"| {row['pipeline']} | {row['family']} | {sources} | {' | '.join(cells)} |")
    refused = [f"| {row['pipeline']} | {row['reason']} |" for row in rows if not row["supported"]]
    out.write_text("\n".join(lines) + "\n" + TAIL + "\n".join(refused) + "\n" + OTHER, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
