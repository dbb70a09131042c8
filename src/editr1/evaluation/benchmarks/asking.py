"""Asking a judge about the edits of a benchmark: raw answers, written one by one, never guessed.

A judge that writes is asked as in the official scripts. If the official rule cannot read an answer and the judge is a
server, it is asked again (a model in this process would repeat itself word by word at temperature 0). A judge that
cannot write such answers is asked for each criterion by Score Logit, and its numbers are put in the official form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from editr1.evaluation.benchmarks.base import Benchmark, Item, Question
from editr1.files import JsonLines, loader
from editr1.judges.base import MLLM, JudgeRequest, Score
from editr1.judges.mllm import MLLMJudge

TRIES = 3


@dataclass(frozen=True)
class Record:
    """One answer, as a line of the file.

    Attributes:
        key: key of the item.
        question: name of the question.
        text: the raw answer; None without an answer.
        reason: why there is none.
        unread: earlier answers that the official rule could not read.
        numbers: numbers of a Score Logit judge before they were put in the official form.
        prompt_tokens: tokens that the judge read, of all tries.
        completion_tokens: tokens that the judge wrote, of all tries.
    """

    key: str
    question: str
    text: str | None
    reason: str | None = None
    unread: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0


_load = loader(Record)


@dataclass(frozen=True)
class Job:
    """One edit, and the questions about it that are left."""

    item: Item
    source: Image
    edit: Image
    questions: Mapping[str, Question]


Asker = Callable[[Sequence[Job]], list[Record]]


def written(model: MLLM, benchmark: Benchmark) -> Asker:
    """Asks for answers in the official form."""
    tries = TRIES if model.remote else 1

    def ask(jobs: Sequence[Job]) -> list[Record]:
        records: dict[tuple[str, str], Record] = {}
        left = [(job.item, name, question) for job in jobs for name, question in job.questions.items()]
        for attempt in range(tries):
            answers = model.answer([replace(question.ask, seed=attempt) for _, _, question in left])
            again = []
            for (item, name, question), answer in zip(left, answers, strict=True):
                before = records.get((item.key, name), Record(item.key, name, None))
                answered = before.text is not None
                record = replace(
                    before,
                    text=before.text if answer.reason is not None else answer.text,
                    reason=answer.reason if not answered else None,
                    unread=(*before.unread, str(before.text)) if answered and answer.reason is None else before.unread,
                    prompt_tokens=before.prompt_tokens + answer.prompt_tokens,
                    completion_tokens=before.completion_tokens + answer.completion_tokens,
                )
                records[item.key, name] = record
                if record.text is not None and not benchmark.read(item, name, record.text).numbers:
                    again.append((item, name, question))
            left = again
            if not left:
                break
        return list(records.values())

    return ask


def by_score_logit(judge: MLLMJudge) -> Asker:
    """Asks for each criterion by Score Logit, and writes the official form itself."""

    def ask(jobs: Sequence[Job]) -> list[Record]:
        requests = [JudgeRequest(job.item.sample(job.source), job.edit) for job in jobs]
        records = []
        for job, score in zip(jobs, judge.score(requests), strict=True):
            parts = score.parts or dict.fromkeys(judge.criteria, score)
            tokens = score.tokens
            for name, question in job.questions.items():
                records.append(_from_parts(job.item.key, name, question, parts, tokens))
                tokens = 0  # the tokens of all questions are counted once
        return records

    return ask


def _from_parts(key: str, name: str, question: Question, parts: Mapping[str, Score], tokens: int) -> Record:
    numbers = []
    for criterion in question.criteria.values():
        value = parts[criterion].value
        if value is None:
            return Record(key, name, None, f"{criterion}: {parts[criterion].reason}", prompt_tokens=tokens)
        numbers.append(question.low + value * (question.high - question.low))
    return Record(key, name, question.write(numbers), numbers=tuple(numbers), prompt_tokens=tokens)


class AnswerStore:
    """The answers of one judge in OUT/answers.jsonl: a line with the judge and its method, then one line per answer.

    Raises:
        UserError: the answers there are another judge's.
    """

    def __init__(self, out: Path, asked: Mapping[str, Any], writes: bool = True) -> None:
        remedy = "give another --out, or delete this file to have the same edits judged anew"
        self.path = out / "answers.jsonl"
        self._lines = JsonLines(self.path, "answers", remedy, head=asked, load=_load, writes=writes)
        records = [record for record in self._lines.rows if record.text is not None]  # others are asked again
        self.records = {(record.key, record.question): record for record in records}
        self._lines.replace(map(asdict, self.records.values()))

    def tokens(self) -> dict[str, int]:
        """Tokens that the judge read and wrote for the answers in the file."""
        names = ("prompt_tokens", "completion_tokens")
        return {name: sum(getattr(record, name) for record in self.records.values()) for name in names}

    def add(self, records: Iterable[Record]) -> None:
        records = list(records)
        self._lines.append(map(asdict, records))
        self.records.update({(record.key, record.question): record for record in records})


def to_json(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Records as JSON."""
    return [asdict(record) for record in records]


def from_json(records: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The reverse."""
    return [_load(**record) for record in records]
