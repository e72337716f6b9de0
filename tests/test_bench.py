"""The benchmark compares like with like: the same network, the same data, the same counting."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from launching import succeed
from torch.nn import functional

from benchmarks import plain_data
from benchmarks.alternation import Effort
from benchmarks.bench import Bench, Outcome
from benchmarks.case_writer import ENGINE_CONFIG, write_case
from benchmarks.figures import OWN, Line, Measure, at_most, compare
from benchmarks.operations import count_operations
from benchmarks.plain_model import PlainModel
from benchmarks.report import number, table
from benchmarks.rows.arithmetic import flops_of_clip
from ds_trainer.tasks.sign.augmentation import movable, rotation, transformed
from ds_trainer.tasks.sign.known_layouts import layout_for
from ds_trainer.tasks.sign.mirror import mirrored
from ds_trainer.tasks.sign.models.base import ModelSpec
from ds_trainer.tasks.sign.models.size import ModelSize
from ds_trainer.tasks.sign.models.st_transformer import SpatioTemporalTransformer
from ds_trainer.tasks.sign.normalisation import normalise
from ds_trainer.tasks.sign.sampling import Sampling
from ds_trainer.tasks.sign.store_writer import write_store
from ds_trainer.tasks.sign.synthetic import SyntheticSettings, synthetic_source

LAYOUT = layout_for(184, 4)
NUM_SIGNS, NUM_FRAMES = 10, 12


def both_models(size: str = "t_2_2") -> tuple[PlainModel, SpatioTemporalTransformer]:
    parts = list(LAYOUT.parts.values())
    plain = PlainModel(parts, 4, NUM_SIGNS, NUM_FRAMES, size, dropout=0.3)
    own = SpatioTemporalTransformer(ModelSpec(parts, 4, NUM_SIGNS, NUM_FRAMES, ModelSize.parse(size), dropout=0.3))
    return plain.eval(), own.eval()


@pytest.fixture(scope="module")
def clips_BTKC() -> torch.Tensor:
    """Clips with hands that are missing for a while, as they come."""
    settings = SyntheticSettings(num_clips=6, min_frames=NUM_FRAMES, max_frames=NUM_FRAMES)
    clips = [clip.frames for clip in synthetic_source(settings).clips if not isinstance(clip, Exception)]
    clips[0][3:7, 142:163] = 0
    return torch.from_numpy(np.stack(clips))


def test_plain_model_and_own_give_equal_logits_with_weights_of_either(clips_BTKC: torch.Tensor) -> None:
    """To float32 rounding: one computes attention by the fused kernel, the other by explicit products."""
    plain, own = both_models()
    plain.load_state_dict(own.state_dict())
    torch.testing.assert_close(plain(clips_BTKC), own(clips_BTKC), rtol=1e-5, atol=1e-5)
    other, _ = both_models()
    own.load_state_dict(other.state_dict())
    torch.testing.assert_close(other(clips_BTKC), own(clips_BTKC), rtol=1e-5, atol=1e-5)


def test_numpy_path_resamples_like_own() -> None:
    frames_TKC = np.arange(37, dtype=np.float32)[:, None, None]
    middle_T = np.full(NUM_FRAMES, 0.5)
    own_BT = Sampling(NUM_FRAMES).frames(torch.tensor([0]), torch.tensor([37]), draw=None)
    assert plain_data.resampled(frames_TKC, middle_T)[:, 0, 0].tolist() == own_BT[0].tolist()


def test_numpy_path_normalises_and_augments_like_own(clips_BTKC: torch.Tensor) -> None:
    layout = LAYOUT.to_dict()
    own_BTKC = normalise(clips_BTKC, LAYOUT, 1.0, None, True)
    numpy_clips = [plain_data.normalised(clip, layout) for clip in clips_BTKC.numpy()]
    torch.testing.assert_close(torch.from_numpy(np.stack(numpy_clips)), own_BTKC, rtol=1e-4, atol=1e-4)
    own_BTKC = mirrored(own_BTKC, LAYOUT)
    numpy_clips = [plain_data.mirrored(clip, layout) for clip in numpy_clips]
    torch.testing.assert_close(torch.from_numpy(np.stack(numpy_clips)), own_BTKC, rtol=1e-4, atol=1e-4)
    angle, scale, shift_D = 0.1, 1.05, np.array([0.01, -0.02, 0.03], np.float32)
    number_of_clips = len(clips_BTKC)
    matrix_BDD = scale * rotation(torch.full((number_of_clips,), angle), (0, 1), 3)
    offset_BKD = (torch.from_numpy(shift_D) * movable(LAYOUT, torch.device("cpu"))).expand(number_of_clips, -1, -1)
    own_BTKC = transformed(own_BTKC, LAYOUT, matrix_BDD, offset_BKD)
    numpy_clips = [plain_data.transformed(clip, layout, angle, scale, shift_D) for clip in numpy_clips]
    torch.testing.assert_close(torch.from_numpy(np.stack(numpy_clips)), own_BTKC, rtol=1e-4, atol=1e-4)


def test_operations_are_counted_in_forward_backward_and_optimizer_but_no_views() -> None:
    weight = torch.ones(3, 2, requires_grad=True)
    inputs = torch.ones(4, 3)

    def step() -> None:
        loss = (inputs @ weight).transpose(0, 1).view(2, 2, 2).sum()
        loss.backward()
        weight.grad = None

    counts = count_operations(step)
    # forward: mm, sum; backward: ones_like, mm (the views in between cost nothing)
    assert counts.by_name == {"aten::mm": 2, "aten::sum": 1, "aten::ones_like": 1}
    assert (counts.operations, counts.synchronisations) == (4, 0)


def test_reading_a_number_is_a_synchronisation() -> None:
    numbers = torch.ones(3)
    assert count_operations(lambda: numbers.sum().item()).synchronisations == 1
    assert count_operations(lambda: bool(numbers.any())).synchronisations == 1
    assert count_operations(lambda: numbers.sum()).synchronisations == 0


def test_a_plain_step_of_the_model_takes_as_many_operations_as_before() -> None:
    """The peer must not change by accident: its count is what ds_trainer's is compared with."""
    torch.manual_seed(0)
    model = both_models("s_4_6")[0].train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    clips, signs = torch.randn(2, NUM_FRAMES, 184, 4), torch.tensor([1, 2])

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.cross_entropy(model(clips), signs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    step()
    counts = count_operations(step)
    assert counts.synchronisations == 1
    assert counts.operations == count_operations(step).operations
    assert 600 < counts.operations < 800


def test_ratios_are_taken_within_rounds() -> None:
    """A machine that is slow in one round is slow for both."""
    samples = {OWN: [{"s": 1.0}, {"s": 10.0}, {"s": 1.0}], "plain": [{"s": 2.0}, {"s": 20.0}, {"s": 1.5}]}
    (line,) = compare("row", samples, Measure("s", "s", least_ratio={"plain": 1.7}))
    assert (line.own, line.theirs, line.ratio, line.lowest, line.highest) == (1.0, 2.0, 2.0, 1.5, 2.0)
    assert (line.goal, line.is_met) == (">= 1.7 x", True)


def test_rates_are_better_when_higher_and_a_peer_that_failed_has_no_ratio() -> None:
    samples = {OWN: [{"rate": 30.0}], "numpy": [{"rate": 10.0}], "gone": []}
    numpy_line, gone = compare("row", samples, Measure("rate", "clips/s", is_cost=False, least_ratio={"numpy": 4}))
    assert (numpy_line.ratio, numpy_line.is_met) == (3.0, False)
    assert (gone.theirs, gone.ratio, gone.is_met) == (None, None, None)


def test_table_says_what_is_met() -> None:
    line = at_most(Line("operations s_4_6", "operations/step", 812.0, "plain", 967.0, 1.19), 800, "<= 800")
    text = table([line])
    assert re.search(r"operations s_4_6 +operations/step +812 +plain +967 +1.19 x +- +<= 800 +no", text)


@pytest.mark.parametrize("bf16", [0.9e9, 30e9])
def test_who_computes_in_emulated_bf16_is_left_out_and_named(bf16: float, tmp_path: Path) -> None:
    bench = Bench(Effort(), tmp_path, {"fp32": 77e9, "bf16": bf16}, say=print)
    outcome = Outcome()
    names = bench.affordable(outcome, "step", (OWN, "plain", "plain_fp32", "deepspeed"))
    if bf16 > 1e9:
        assert (names, outcome.notes) == ((OWN, "plain", "plain_fp32", "deepspeed"), [])
    else:
        assert names == (OWN, "plain_fp32")
        assert outcome.notes == ["step: left out: plain, deepspeed: bf16 at 0.9 GFLOP/s here"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (98.76, "98.8"), (75300.4, "75,300")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_case_gives_the_peers_the_clips_and_weights_of_ds_trainer(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_store(store, synthetic_source(SyntheticSettings(num_clips=60, num_signs=3, layout="holistic_75")))
    case = write_case(tmp_path / "case", store, "t_1_1", micro_batch=4, dropout=0.1, engine_config=ENGINE_CONFIG)
    assert case.num_signs == 3
    with np.load(case.folder / "clips.npz") as clips:
        assert len(clips["clip"]) == len(clips["sign_class"]) > 30
        assert set(clips["sign_class"].tolist()) == {0, 1, 2}
    layout = plain_data.layout_of(store)
    model = PlainModel(list(layout["parts"].values()), 4, 3, case.num_frames, case.size, case.dropout)
    model.load_state_dict(torch.load(case.folder / "weights.pt"))
    assert flops_of_clip(case) > 1e6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_quick_row_ends_in_a_table_a_file_and_a_plot(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks"]
    output = succeed([*command, "--quick", "--only", "overhead", "--results_dir", tmp_path], timeout_s=400)
    (results,) = tmp_path.glob("*-quick.json")
    assert results.with_suffix(".png").stat().st_size > 1000
    content = json.loads(results.read_text())
    samples = content["rows"]["overhead"]["samples"]["step t_4_2, micro-batch 4"]
    assert {name: len(by_round) for name, by_round in samples.items()} == dict.fromkeys(samples, 1)
    assert set(samples) == {OWN, "plain", "deepspeed"}
    assert content["rows"]["overhead"]["notes"], output
    assert "step t_4_2, micro-batch 4" in output
