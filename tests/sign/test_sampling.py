"""Unit: every frame is one of its clip's, in order, and in its own bin of time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ds_trainer.randomness import Draw
from ds_trainer.tasks.sign.sampling import REST_FRACTION, Sampling

LENGTHS = torch.arange(1, 201)
FIRST = LENGTHS.cumsum(0) - LENGTHS + 7


def drawn(num_samples: int, seed: int, draw_index: torch.Tensor | None = None) -> torch.Tensor:
    index = torch.arange(len(LENGTHS)) if draw_index is None else draw_index
    return Sampling(num_samples).frames(FIRST[index], LENGTHS[index], Draw.of(seed, 0, index))


@pytest.mark.parametrize("num_samples", [2, 3, 50, 64])
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_frames_are_of_their_clip_and_in_order(num_samples: int, seed: int | None) -> None:
    draw = None if seed is None else Draw.of(seed, 0, torch.arange(len(LENGTHS)))
    frames = Sampling(num_samples).frames(FIRST, LENGTHS, draw)
    assert frames.shape == (200, num_samples)
    assert frames.dtype == torch.int64
    assert (frames >= FIRST[:, None]).all()
    assert (frames < (FIRST + LENGTHS)[:, None]).all()
    assert (frames.diff(dim=1) >= 0).all()


class Upmost(Draw):
    """Draws the largest number that there is below 1, for every frame."""

    def uniform(self, name: str, num_columns: int = 1) -> torch.Tensor:
        return torch.full((len(self.state_B1), num_columns), 1 - 2.0**-24)


@pytest.mark.parametrize("num_samples", [2, 3, 7, 49, 50, 64])
def test_largest_draw_stays_in_the_clip(num_samples: int) -> None:
    lengths = torch.arange(1, 3001)
    frames = Sampling(num_samples).frames(torch.zeros_like(lengths), lengths, Upmost(lengths[:, None]))
    assert (frames[:, -1] == lengths - 1).all()


def test_centres_of_bins_without_a_draw() -> None:
    frames = Sampling(5).frames(torch.tensor([0, 100, 0, 0]), torch.tensor([5, 10, 1, 3]), None)
    assert frames.tolist() == [[0, 1, 2, 3, 4], [101, 103, 105, 107, 109], [0, 0, 0, 0, 0], [0, 0, 1, 2, 2]]
    assert torch.equal(Sampling(50).frames(FIRST, LENGTHS, None), Sampling(50).frames(FIRST, LENGTHS, None))


def tempos(most: float, num_clips: int = 300) -> torch.Tensor:
    """Frames passed in each tenth of 300 clips of 10,000 frames, as a fraction of a tenth: float[B, 10]."""
    lengths = torch.full((num_clips,), 10_000)
    draw = Draw.of(0, 0, torch.arange(num_clips))
    frames = Sampling(1001, max_tempo_fraction=most).frames(torch.zeros_like(lengths), lengths, draw)
    assert (frames.diff(dim=1) >= 0).all(), "time never runs back"
    return frames[:, ::100].diff(dim=1) / 1000


def test_tempo_rises_and_falls_within_its_limits() -> None:
    even, uneven = tempos(0.0), tempos(0.5)
    torch.testing.assert_close(even, torch.ones_like(even), rtol=0, atol=0.02)
    assert 0.48 < uneven.min() < 0.6
    assert 1.4 < uneven.max() < 1.52
    torch.testing.assert_close(uneven.sum(1), torch.full((300,), 10.0), rtol=0, atol=0.03)
    assert (uneven.diff(dim=1).abs() < 0.6).all(), "smoothly"
    assert set(uneven.argmax(1).tolist()) == set(range(10)), "fastest anywhere"


def test_cut_begins_and_ends_elsewhere_and_stays_in_the_clip() -> None:
    lengths = torch.full((400,), 1000)
    draw = Draw.of(0, 0, torch.arange(400))
    frames = Sampling(100, max_cut_fraction=0.2).frames(torch.zeros_like(lengths), lengths, draw)
    assert frames.min() == 0
    assert frames.max() == 999
    assert 170 < frames[:, 0].max() < 220
    assert 780 < frames[:, -1].min() < 830
    assert 0.35 < (frames[:, 0] == 0).float().mean() < 0.65, "half of them would begin before the first frame"
    is_shorter = (frames[:, 0] >= 10) & (frames[:, -1] < 990)
    assert 0.15 < is_shorter.float().mean() < 0.3, "begin and end are drawn by themselves"


@given(st.integers(1, 200), st.integers(2, 60), st.integers(0, 1000))
def test_jitter_stays_in_its_bin(length: int, num_samples: int, seed: int) -> None:
    draw = Draw.of(seed, 0, torch.tensor([length]))
    (frames,) = Sampling(num_samples).frames(torch.tensor([0]), torch.tensor([length]), draw).tolist()
    for place, frame in enumerate(frames):
        # The frame covers [frame, frame + 1) of the clip's time: some of that lies in the bin.
        assert frame < (place + 1) * length / num_samples
        assert frame + 1 > place * length / num_samples


def test_jitter_reaches_all_frames_of_its_bin() -> None:
    seen = [
        Sampling(50).frames(torch.tensor([0]), torch.tensor([200]), Draw.of(0, epoch, torch.tensor([3])))[0]
        for epoch in range(60)
    ]
    offsets = torch.stack(seen) - torch.arange(0, 200, 4)
    assert all(sorted(set(of_bin)) == [0, 1, 2, 3] for of_bin in offsets.T.tolist())


def test_draw_of_a_clip_does_not_depend_on_its_batch() -> None:
    alone = drawn(50, seed=4, draw_index=torch.tensor([17]))
    assert torch.equal(drawn(50, seed=4, draw_index=torch.tensor([3, 17, 199]))[1:2], alone)
    assert not torch.equal(drawn(50, seed=5, draw_index=torch.tensor([17])), alone)


def moving(times: torch.Tensor) -> torch.Tensor:
    """A clip of two keypoints, one that stands and one that is at `times` along x: float[1, F, 2, 3]."""
    clip = torch.ones(1, len(times), 2, 3)
    clip[0, :, 1, 0] = 1 + times
    return clip


@pytest.mark.parametrize("wait", [0, 5, 40])
def test_waiting_takes_no_time_where_movement_is_the_clock(wait: int) -> None:
    """However long a signer waits before and rests behind the sign, all of it is seen."""
    path = torch.cat([torch.zeros(wait), torch.linspace(0, 1, 5), torch.ones(2 * wait)])
    seen = Sampling(10, motion_fraction=1.0).by_motion(moving(path), 3, [0, 1], None)
    torch.testing.assert_close(seen[0, :, 1, 0] - 1, (torch.arange(10) + 0.5) / 10, rtol=0, atol=1e-4)
    assert (seen[0, :, 0] == 1).all()


def test_end_of_a_clip_that_rests_there_is_its_last_frame() -> None:
    """In training, where a clip may end later than it does: in float32 the last moment is 1, when the clock stands."""
    clips = moving(torch.cat([torch.linspace(0, 1, 5), torch.ones(4)])).expand(200, -1, -1, -1)
    draw = Draw.of(0, 0, torch.arange(200))
    seen = Sampling(10, motion_fraction=1.0, max_cut_fraction=0.5).by_motion(clips, 3, [0, 1], draw)
    assert (seen[:, -1, 1, 0] - 1).amax() == 1
    assert seen.isfinite().all()


@pytest.mark.parametrize(("rest_fraction", "least", "most"), [(0.0, 0.2, 0.4), (REST_FRACTION, 0.6, 1.0)])
def test_trembling_before_and_behind_a_sign_takes_little_time(rest_fraction: float, least: float, most: float) -> None:
    """A sign of 40 frames among 1,000 in which everything trembles a twentieth as fast as it moves."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.full((1000, 1), 0.01)
    steps[480:520] = 0.2
    path = (steps * torch.randn(1000, 20, generator=generator)).cumsum(0)
    clips = torch.stack([path, torch.ones_like(path)], dim=-1)[None] + 100
    frame_of = torch.arange(1000.0)[None, :, None, None].expand(1, -1, 1, 2)
    sampling = Sampling(64, motion_fraction=0.8, num_read=1000, rest_fraction=rest_fraction)
    seen = sampling.by_motion(torch.cat([clips, frame_of], dim=2), 2, range(20), None)[0, :, -1, 0]
    share = ((seen > 479) & (seen < 521)).float().mean()
    assert least < share < most


def test_what_moves_throughout_is_seen_evenly_though_some_of_it_may_count_as_rest() -> None:
    sampling = Sampling(50, motion_fraction=1.0, rest_fraction=REST_FRACTION)
    seen = sampling.by_motion(moving(torch.linspace(0, 5, 200)), 3, [1], None)[0, :, 1, 0]
    torch.testing.assert_close(seen.diff(), torch.full((49,), float(seen.diff().mean())), rtol=0.02, atol=0.0)


def test_no_part_of_a_sign_counts_as_rest_where_half_of_the_clip_stands_still() -> None:
    path = torch.cat([torch.zeros(60), torch.linspace(0, 2, 20), torch.linspace(3, 20, 18)])
    some, none = (
        Sampling(20, 1.0, rest_fraction=fraction).by_motion(moving(path), 3, [1], None)
        for fraction in (REST_FRACTION, 0.0)
    )
    torch.testing.assert_close(some, none)


def test_a_hand_that_goes_out_of_sight_does_not_slow_the_clock() -> None:
    clip = moving(torch.linspace(0, 1, 9)).flip(2).repeat(1, 1, 2, 1)  # two that move, and two that stand
    clip[0, 5:, 2:] = 0
    seen = Sampling(10, motion_fraction=1.0).by_motion(clip, 3, [0, 2], None)
    torch.testing.assert_close(seen[0, :, 0, 0] - 1, (torch.arange(10) + 0.5) / 10)


def test_long_clips_are_read_closely_up_to_a_bound() -> None:
    assert Sampling.read_for(np.array([30, 40, 50, 128]), 64) == 0, "twice as many as are taken"
    assert Sampling.read_for(np.array([30, *[400] * 99]), 64) == 400
    assert Sampling.read_for(np.array([*[100] * 80, *[400] * 20]), 64) == 400, "a fifth of them is long"
    assert Sampling.read_for(np.array([*[100] * 95, *[400] * 5]), 64) == 0, "few are"
    assert Sampling.read_for(np.array([10**5]), 64) == 1024
    assert Sampling.read_for(np.array([], dtype=np.int64), 64) == 0
    assert Sampling(64, motion_fraction=0.5, num_read=400).frames(FIRST, LENGTHS, None).shape == (200, 400)


def test_half_of_the_clock_may_be_movement() -> None:
    path = torch.cat([torch.zeros(50), torch.linspace(0, 1, 51)])
    halves = Sampling(100, motion_fraction=0.5).by_motion(moving(path), 3, [1], None)[0, :, 1, 0] - 1
    assert 22 <= int((halves < 0.001).sum()) <= 27, "half of the frames wait, and pass in a quarter of the time"


@pytest.mark.parametrize("trembling", [0.0, 1e-9])
def test_clip_in_which_nothing_moves_is_seen_evenly(trembling: float) -> None:
    frame_F = torch.arange(8.0)
    clip = torch.ones(1, 8, 3, 2)
    clip[..., 1] = trembling * frame_F[:, None]
    clip[0, :, 2, 0] = 1 + frame_F  # of this one the movement does not count
    seen = Sampling(4, 1.0).by_motion(clip, 2, [0, 1], None)
    torch.testing.assert_close(seen[0, :, 2, 0] - 1, torch.tensor([0.875, 2.625, 4.375, 6.125]))


def test_missing_keypoints_are_not_made_up_between_frames() -> None:
    clip = moving(torch.linspace(0, 1, 9))
    clip[0, 4, 1] = 0
    seen = Sampling(64, motion_fraction=0.5).by_motion(clip, 3, [0], None)[0, :, 1]
    is_missing = (seen == 0).all(-1)
    assert is_missing.nonzero()[:, 0].tolist() == list(range(28, 36)), "while the frame without it is the nearest one"
    assert (seen[~is_missing][:, 0] >= 1).all()


def test_movement_as_the_clock_reads_twice_the_frames_and_draws_as_before() -> None:
    sampling = Sampling(8, motion_fraction=0.5, max_tempo_fraction=0.3)
    draw = Draw.of(1, 2, torch.arange(3))
    frames = sampling.frames(torch.zeros(3, dtype=torch.int64), torch.tensor([16, 32, 5]), draw)
    assert frames[0].tolist() == list(range(16))
    assert frames.shape == (3, 16)
    clips = torch.rand(3, 16, 4, 3) + 0.1
    one, again = (sampling.by_motion(clips, 3, [0, 1], draw) for _ in range(2))
    assert torch.equal(one, again)
    alone = sampling.by_motion(clips[[2]], 3, [0, 1], Draw.of(1, 2, torch.tensor([2])))
    torch.testing.assert_close(alone, one[[2]])
