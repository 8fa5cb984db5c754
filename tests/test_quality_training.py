"""Training: the same numbers batched, spread and alone; a run that is cut goes on bit for bit; errors."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim.errors import InputError
from kraken_sim.files.whole import write_whole

torch = pytest.importorskip("torch")

import quality_worker  # noqa: E402
from process_support import files_limited_to  # noqa: E402
from quality_support import KRAKEN, SHAPE, TRAINING, byte_corpus, recipe  # noqa: E402
from ranks_support import run_ranks  # noqa: E402

from validation.models import ARCHITECTURES, build_model  # noqa: E402
from validation.models.communication import Group  # noqa: E402
from validation.models.kraken import KrakenDecoder  # noqa: E402
from validation.models.reference import random_weights  # noqa: E402
from validation.models.weights import load_weights  # noqa: E402
from validation.quality import checkpoint  # noqa: E402
from validation.quality.batched_kraken import BatchedKraken  # noqa: E402
from validation.quality.log import read_log  # noqa: E402
from validation.quality.network import build_network, flops_per_token  # noqa: E402
from validation.quality.optimizer import Optimizer, rate_at  # noqa: E402
from validation.quality.place import Place  # noqa: E402
from validation.quality.recipe import Recipe, read_recipe  # noqa: E402
from validation.quality.train import main  # noqa: E402
from validation.quality.trainer import Trainer, read_result  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from validation.quality.corpus import Corpus

pytestmark = pytest.mark.torch
ALONE = Place(Group(), Group(), Group(), torch.device("cpu"))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return byte_corpus(tmp_path_factory.mktemp("text"))


def steps_of(run: Path) -> list[dict[str, Any]]:
    """What a run logged, without its speed."""
    return [{key: x for key, x in line.items() if key not in ("tokens_per_s", "mfu")} for line in read_log(run)]


def weights_of(run: Path) -> dict[str, Any]:
    found = checkpoint.latest(run)
    assert found is not None
    state: dict[str, Any] = checkpoint.load(run, found, 0, torch.device("cpu"))["optimizer"]
    return state


def same(one: Any, other: Any) -> bool:
    """Bit for bit, through dictionaries and lists."""
    if isinstance(one, torch.Tensor):
        return bool(torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def twin_of(one: Recipe) -> Any:
    twin = build_model("kraken", one.config, num_ways=one.num_ways, dtype=torch.float64, world=Group())
    load_weights(random_weights("kraken", one.config, one.num_ways), twin)
    assert isinstance(twin, KrakenDecoder)
    return twin


def test_batched_sub_layers_compute_what_the_twin_computes() -> None:
    twin = twin_of(recipe({"kind": "kraken", "ways": 3}))
    batched: Any = BatchedKraken(twin)
    ids = torch.randint(0, 257, (2, 16), generator=torch.Generator().manual_seed(0))
    expected = twin(ids, all_positions=True)
    logits = batched(ids)
    assert (logits - expected).abs().max() < 1e-12 * expected.abs().max()
    twin.embeddings.zero_grad()
    expected.square().sum().backward()
    whole = twin.embeddings.tokens.weight.grad.clone()
    wanted = twin.layers[1].sublayers[2].attention.qkv.weight.grad
    twin.embeddings.zero_grad()
    logits.square().sum().backward()
    assert (twin.embeddings.tokens.weight.grad - whole).abs().max() < 1e-9 * whole.abs().max()
    found = batched.layers[1].qkv.weight.grad[2]
    assert (found - wanted).abs().max() < 1e-9 * wanted.abs().max()


def test_what_is_received_feeds_the_norm_alone_or_the_residual_too_or_is_not_sent() -> None:
    twin = twin_of(recipe(KRAKEN))
    x = torch.randn(2, 8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for received in ("norm", "nothing", "residual", "residual_mean"):
        layer: Any = list(BatchedKraken(twin, received).layers)[1]
        y = layer.attend(layer.attention_norm(x), 1)
        other = x.flip(0)
        for way in range(2):
            alone, sent = x[way] + y[way], x[way] + y[way] + other[way]
            residual = {"residual": sent, "residual_mean": y[way] + (x[0] + x[1]) / 2}.get(received, alone)
            into_norm = alone if received == "nothing" else sent
            both = torch.stack([into_norm, into_norm])
            expected = residual + layer.feed_forward(layer.ffn_norm(both))[way]
            assert (layer(x, 1, first=False)[way] - expected).abs().max() < 1e-12
        both = x + y
        expected = both + layer.feed_forward(layer.ffn_norm(both))
        assert (layer(x, 1, first=True) - expected).abs().max() < 1e-12


def test_residual_projections_of_n_ways_start_smaller_by_the_root_of_n() -> None:
    shape = SHAPE | {"hidden_size": 128, "num_attention_heads": 4}
    one = Recipe.model_validate({"name": "wide", "model": shape, "architecture": KRAKEN, "training": TRAINING})
    network: Any = build_network(one, Group(), "cpu")
    layer = network.layers[0]
    for matrix in (layer.out.weight, layer.down.weight):
        assert matrix.std().item() == pytest.approx(0.02 / math.sqrt(2 * 2 * 2), rel=0.02)
    assert layer.up.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine() -> None:
    one = recipe(tokens=101 * 64, warmup_share=0.1, learning_rate=1.0)
    rates = [rate_at(step, one) for step in range(one.num_steps)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)


def test_a_gradient_beyond_the_limit_is_cut_to_it_and_biases_and_norms_do_not_decay() -> None:
    one = recipe(KRAKEN, max_gradient_norm=0.5, weight_decay=0.25)
    network = build_network(one, Group(), "cpu")
    optimizer = Optimizer(network, one.training, ALONE)
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    norm = optimizer.step(0.0)
    assert norm.item() == pytest.approx(math.sqrt(sum(weight.numel() for weight in network.parameters())))
    moments = [optimizer.adam.state[weight]["exp_avg"] for weight in network.parameters()]
    total = math.sqrt(sum(float(x.square().sum()) for x in moments))
    assert total == pytest.approx(0.1 * 0.5, rel=1e-4)
    still = {id(x) for x in optimizer.adam.param_groups[1]["params"]}
    names = {name for name, weight in network.named_parameters() if id(weight) in still}
    assert names == {name for name, _ in network.named_parameters() if name.endswith("bias") or "norm" in name}


@pytest.mark.parametrize("architecture", [None, {"kind": "parallel"}, KRAKEN], ids=["standard", "parallel", "kraken"])
def test_a_model_learns_what_repeats(tmp_path: Path, corpus: Corpus, architecture: dict[str, Any] | None) -> None:
    result = Trainer(recipe(architecture, tokens=60 * 64), corpus, tmp_path, ALONE).run()
    losses = [line["loss"] for line in read_log(tmp_path) if "loss" in line]
    assert losses[0] > 5.0 > 4.0 > losses[-1]
    assert result is not None
    assert result.bits_per_byte < losses[0] / math.log(2)
    # A byte is a token, and of some forty bytes one more ends a text.
    assert result.bits_per_byte == pytest.approx(result.validation_loss / math.log(2), rel=0.02)


def test_a_run_that_is_cut_goes_on_bit_for_bit(tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut, one = tmp_path / "whole", tmp_path / "cut", recipe(KRAKEN)
    Trainer(one, corpus, whole, ALONE).run()
    trainer = Trainer(one, corpus, cut, ALONE)
    step = trainer._train_step

    def fall_over() -> bool:
        if trainer.step == 8:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(trainer, "_train_step", fall_over)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert [line["step"] for line in steps_of(cut)] == [2, 4, 6, 6, 8]
    assert Trainer(one, corpus, cut, ALONE).run(stop_at_s=0.0) is None
    assert [line["step"] for line in steps_of(cut)] == [2, 4]
    assert Trainer(one, corpus, cut, ALONE).run() is not None
    assert steps_of(cut) == steps_of(whole)
    assert same(weights_of(cut), weights_of(whole))


def test_a_killed_process_goes_on_bit_for_bit(tmp_path: Path, corpus: Corpus) -> None:
    training = TRAINING | {"tokens": 300 * 64, "checkpoint_every_steps": 3, "validate_every_steps": 100}
    one = {"name": "killed", "model": SHAPE, "architecture": KRAKEN, "training": training}
    path, run, whole = tmp_path / "recipe.yaml", tmp_path / "run", tmp_path / "whole"
    path.write_text(json.dumps(one))
    arguments = [str(path), "--data", str(corpus.folder), "--out", str(run), "--device", "cpu"]
    command = [sys.executable, "-m", "validation.quality.train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while len(read_log(run)) < 20 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    found = checkpoint.latest(run)
    assert found is not None
    assert 0 < found.step < 300
    again = Recipe.model_validate(one)
    Trainer(again, corpus, run, ALONE).run()
    Trainer(again, corpus, whole, ALONE).run()
    assert steps_of(run) == steps_of(whole)
    assert same(weights_of(run), weights_of(whole))


def test_a_full_disk_ends_a_run_with_a_sentence_and_it_goes_on(
    tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(json.dumps({"name": "full", "model": SHAPE, "training": TRAINING}))
    arguments = [str(path), "--data", str(corpus.folder), "--out", str(run), "--device", "cpu"]
    with files_limited_to(5000):
        assert main(arguments) == 2
    assert "cannot be written: File too large; the run is as of its last checkpoint" in capsys.readouterr().err
    assert checkpoint.latest(run) is None
    (run / "log.jsonl").write_text('{"step": 2}\n[]\n{"step": 3}\n')
    assert main(arguments) == 0
    (run / "result.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_result(run)
    assert main([*arguments, "--deadline", "nan"]) == 2
    assert "--deadline: must be a positive number" in capsys.readouterr().err


def test_a_checkpoint_is_the_one_before_until_all_of_the_next_is_there(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe()
    checkpoint.save(tmp_path, ALONE, 5, one, corpus, {"step": 5})

    def fail_at_last(path: Path, data: bytes) -> None:
        if path.name == checkpoint.LATEST:
            raise OSError(28, "No space left on device")
        write_whole(path, data)

    monkeypatch.setattr(checkpoint, "write_whole", fail_at_last)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, ALONE, 10, one, corpus, {"step": 10})
    assert checkpoint.resume(tmp_path, ALONE, one, corpus) == (5, {"step": 5})
    monkeypatch.undo()
    checkpoint.save(tmp_path, ALONE, 10, one, corpus, {"step": 10})
    assert checkpoint.resume(tmp_path, ALONE, one, corpus) == (10, {"step": 10})
    assert [path.name for path in (tmp_path / checkpoint.FOLDER).glob("step-*")] == ["step-10"]


def test_another_recipe_text_or_number_of_devices_does_not_go_on(tmp_path: Path, corpus: Corpus) -> None:
    checkpoint.save(tmp_path, ALONE, 5, recipe(), corpus, {})
    with pytest.raises(InputError, match=r"(?s)architecture.ways.*training.learning_rate: is not what the checkpoint"):
        checkpoint.resume(tmp_path, ALONE, recipe(KRAKEN, learning_rate=0.5), corpus)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "more.txt").write_text("one more")
    other = byte_corpus(tmp_path / "other")
    (other.folder.parent / "texts" / "more.txt").write_text("something else")
    changed = byte_corpus(tmp_path / "other")
    with pytest.raises(InputError, match="is not the text that the checkpoint was trained on"):
        checkpoint.resume(tmp_path, ALONE, recipe(), changed)
    two = Place(Group(0, 2), Group(0, 2), Group(), torch.device("cpu"))
    with pytest.raises(InputError, match="the checkpoint is of 1 devices"):
        checkpoint.resume(tmp_path, two, recipe(), corpus)
    part = tmp_path / checkpoint.FOLDER / "step-5" / "rank-0.pt"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.resume(tmp_path, ALONE, recipe(), corpus)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, corpus: Corpus) -> None:
    result = Trainer(recipe(learning_rate=1e30, max_gradient_norm=1e30), corpus, tmp_path, ALONE).run()
    assert result is not None
    assert result.diverged
    assert result.validation_loss == math.inf


def test_ranks_that_share_a_model_and_copies_of_it_train_as_one_process_does(tmp_path: Path, corpus: Corpus) -> None:
    (tmp_path / "corpus").symlink_to(corpus.folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(probe.getsockname()[1]))
    run_ranks(quality_worker.run, 4, 4, str(tmp_path))
    for name in quality_worker.RUNS:
        quality_worker.trainer_of(name, tmp_path, tmp_path / f"{name}-1", ALONE).run()
        spread, alone = steps_of(tmp_path / f"{name}-4"), steps_of(tmp_path / f"{name}-1")
        assert len(spread) == len(alone) == 4
        for one, other in zip(spread, alone, strict=True):
            assert one == pytest.approx(other, rel=2e-4), name


def test_floating_point_operations_are_six_a_weight_and_the_scores(corpus: Corpus) -> None:
    one = recipe(KRAKEN)
    d, layers, ways, length = 16, 2, 2, 16
    matrices = layers * ways * 8 * d * d + 258 * d + ways * d * d
    assert flops_per_token(one) == 6 * matrices + 6 * layers * ways * length * d
    assert corpus.vocab_size == 257


def test_a_recipe_names_all_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: bad\n"
        "model: {num_hidden_layers: 2, hidden_size: 15, num_attention_heads: 2, vocab_size: 9, "
        "max_position_embeddings: 8}\n"
        "architecture: {kind: standard, ways: 2}\n"
        "training: {tokens: 0, sequences_per_step: 4, learning_rat: 1}\n"
    )
    with pytest.raises(InputError) as caught:
        read_recipe(path, ARCHITECTURES)
    text = str(caught.value)
    for part in ("model.hidden_size: line 2", "architecture.ways: line 3", "training.tokens: line 4", "learning_rate"):
        assert part in text
    path.write_text(json.dumps(recipe().model_dump() | {"architecture": {"kind": "standart"}}))
    with pytest.raises(InputError, match="did you mean 'standard'"):
        read_recipe(path, ARCHITECTURES)


def test_the_command_trains_draws_and_goes_on(
    tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(recipe().model_dump_json())
    arguments = [str(path), "--data", str(corpus.folder), "--out", str(out), "--device", "cpu"]
    assert main([*arguments, "--deadline", "1e-9"]) == 0
    assert "the same command goes on" in capsys.readouterr().err
    assert main([*arguments, "--peak-flops", "1e12"]) == 0
    assert "bits a byte; see" in capsys.readouterr().err
    assert "Validation loss" in (out / "curves.html").read_text()
    assert all(line["mfu"] > 0 for line in read_log(out) if "loss" in line)
    path.write_text(recipe(learning_rate=0.5).model_dump_json())
    assert main(arguments) == 2
    assert "is not what the checkpoint was trained with" in capsys.readouterr().err
    path.write_text(json.dumps(recipe().model_dump() | {"model": SHAPE | {"vocab_size": 100}}))
    assert main([*arguments[:3], "--out", str(tmp_path / "new")]) == 2
    assert "is less than the 257 tokens of the corpus" in capsys.readouterr().err
