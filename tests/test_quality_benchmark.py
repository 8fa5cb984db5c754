"""lm-eval on a checkpoint of ours, with a task of local files in lm-eval's own format."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lm_eval")

from quality_support import byte_corpus, recipe  # noqa: E402

from validation.models.communication import Group  # noqa: E402
from validation.quality.benchmark import main  # noqa: E402
from validation.quality.language_model import TrainedModel  # noqa: E402
from validation.quality.place import Place  # noqa: E402
from validation.quality.trainer import Trainer  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("default"),  # lm-eval's and its libraries' own
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("benchmark")
    place = Place(Group(), Group(), Group(), CPU)
    Trainer(recipe({"kind": "kraken", "ways": 2}, tokens=60 * 64), byte_corpus(folder), folder / "run", place).run()
    return folder / "run"


def test_a_continuation_is_as_likely_as_the_model_says(run: Path) -> None:
    model = TrainedModel(run, CPU)
    context, continuation = list(b"word1 wo"), list(b"rd2 and more than fits")
    asked = [(("", ""), context, continuation[:3]), (("", ""), context, continuation)]
    (short, greedy), (long, _) = model._loglikelihood_tokens(asked)
    ids = torch.tensor([[*context, *continuation[:2]]])
    shares = torch.log_softmax(model.network(ids)[0, :, :257].detach(), dim=-1)
    assert short == pytest.approx(
        sum(float(shares[7 + i, token]) for i, token in enumerate(continuation[:3])), rel=1e-5
    )
    assert greedy == all(int(shares[7 + i].argmax()) == token for i, token in enumerate(continuation[:3]))
    # Of 17 tokens the last 16 can be scored: what is longer is cut on the left.
    assert 16 * math.log(1e-4) < long < short


def test_a_local_task_runs_offline(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    questions = [
        {"question": "word3", "choices": [" word", "\t%%%%"], "label": 0},
        {"question": "word5", "choices": ["~~~~~~", " word"], "label": 1},
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    (tmp_path / "next_word.yaml").write_text(
        "task: next_word\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{validation: {tmp_path / 'data.jsonl'}}}, cache_dir: {tmp_path / 'cache'}}}\n"
        "output_type: multiple_choice\n"
        "validation_split: validation\n"
        "doc_to_text: '{{question}}'\n"
        "doc_to_target: label\n"
        "doc_to_choice: '{{choices}}'\n"
        "target_delimiter: ''\n"
        "metric_list: [{metric: acc}]\n"
    )
    assert main([str(run), "--tasks", "next_word", "--include-path", str(tmp_path)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "next_word" in line)
    assert "acc" in line
    assert "1.0000" in line


def test_what_cannot_be_asked_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--tasks", "boolq"]) == 2
    assert "has no checkpoint" in capsys.readouterr().err
    assert main([str(run), "--tasks", "no_such_task_of_anybody"]) == 2
    assert "lm-eval knows no such task" in capsys.readouterr().err
