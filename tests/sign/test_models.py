"""Contract: every model of the registry fits its socket, for any layout, and does not see padding."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.models import MODELS, ModelSpec
from ds_trainer.tasks.sign.models.base import FrameEmbedding, PartEmbedding, SignModel
from ds_trainer.tasks.sign.models.size import ModelSize

from .examples import LAYOUTS, clips, normalise

NUM_SIGNS, NUM_FRAMES = 5, 12
LENGTHS = torch.tensor([7, 3, 1])


@pytest.fixture(params=list(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def spec_of(layout: KeypointLayout, size: str = "t_2_2", dropout: float = 0.5) -> ModelSpec:
    return ModelSpec(
        parts=list(layout.parts.values()),
        num_features=layout.num_features,
        num_signs=NUM_SIGNS,
        num_frames=NUM_FRAMES,
        size=ModelSize.parse(size),
        dropout=dropout,
    )


def build(name: str, layout: KeypointLayout, size: str = "t_2_2", dropout: float = 0.5) -> SignModel:
    torch.manual_seed(0)
    return MODELS[name](spec_of(layout, size, dropout))


def batch(layout: KeypointLayout, num_frames: int = NUM_FRAMES) -> Tensor:
    return normalise(clips(layout, 3, num_frames, missing=0.1), layout)


def test_every_parameter_learns(name: str, layout: KeypointLayout) -> None:
    model = build(name, layout, dropout=0.0)
    logits = model(batch(layout))
    assert logits.shape == (3, NUM_SIGNS)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        if parameter_name != "pooling.score.bias":  # it moves all scores alike, and a softmax does not see that
            assert (parameter.grad != 0).any(), parameter_name


def test_token_of_a_frame_is_the_sum_of_its_parts(layout: KeypointLayout) -> None:
    spec = replace(spec_of(layout), parts=list(layout.parts.values())[::-1])
    parts, whole = PartEmbedding(spec).double(), FrameEmbedding(spec).double()
    whole.load_state_dict(parts.state_dict())
    clips_BTKC = batch(layout).double()
    tokens_BPTD, tokens_BTD = parts(clips_BTKC), whole(clips_BTKC)
    torch.testing.assert_close(tokens_BTD, tokens_BPTD.sum(1))
    (tokens_BPTD.sum(1).square().sum() + tokens_BTD.square().sum()).backward()
    for (name, one), other in zip(parts.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_evaluation_is_deterministic_and_dropout_is_not(name: str, layout: KeypointLayout) -> None:
    model = build(name, layout)
    clips_BTKC = batch(layout)
    assert not torch.equal(model(clips_BTKC), model(clips_BTKC))
    model.eval()
    assert torch.equal(model(clips_BTKC), model(clips_BTKC))
    model.train()
    torch.manual_seed(4)
    first = model(clips_BTKC)
    torch.manual_seed(4)
    assert torch.equal(model(clips_BTKC), first), "dropout follows torch's seed, so that a step can be repeated"


def test_clips_do_not_change_one_another(name: str, layout: KeypointLayout) -> None:
    model = build(name, layout).eval()
    clips_BTKC = batch(layout)
    alone = torch.cat([model(clip[None]) for clip in clips_BTKC])
    torch.testing.assert_close(model(clips_BTKC), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("garbage", [0.0, 1.0, -1e4, 1e30, float("inf"), float("nan")])
def test_added_padding_does_not_change_the_logits(name: str, layout: KeypointLayout, garbage: float) -> None:
    model = build(name, layout).eval()
    clips_BTKC = batch(layout)
    is_padding = torch.arange(NUM_FRAMES) >= LENGTHS[:, None]
    padded = clips_BTKC.masked_fill(is_padding[..., None, None], garbage)
    logits = model(padded, LENGTHS)
    for clip, length, of_clip in zip(clips_BTKC, LENGTHS, logits, strict=True):
        without_padding = model(clip[None, :length])[0]
        torch.testing.assert_close(of_clip, without_padding, rtol=0, atol=1e-5)


def test_padding_does_not_reach_the_gradients(name: str, layout: KeypointLayout) -> None:
    def gradients(garbage: float) -> list[Tensor]:
        model = build(name, layout, dropout=0.0)
        is_padding = torch.arange(NUM_FRAMES) >= LENGTHS[:, None]
        padded = batch(layout).masked_fill(is_padding[..., None, None], garbage)
        model(padded, LENGTHS).square().sum().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    for clean, garbled in zip(gradients(0.0), gradients(float("nan")), strict=True):
        torch.testing.assert_close(garbled, clean, rtol=0, atol=1e-5)


def test_real_frames_do_change_the_logits(name: str, layout: KeypointLayout) -> None:
    """What would make the tests of padding pass without reason."""
    model = build(name, layout).eval()
    clips_BTKC = batch(layout)
    logits = model(clips_BTKC, LENGTHS)
    last_frame = clips_BTKC.clone()
    last_frame[torch.arange(3), LENGTHS - 1] += 1
    assert ((model(last_frame, LENGTHS) - logits).abs() > 1e-4).any(1).all()
    assert ((model(clips_BTKC.flip(1)) - model(clips_BTKC)).abs() > 1e-5).any(1).all(), "order matters"
    whole = torch.full((3,), NUM_FRAMES)
    torch.testing.assert_close(model(clips_BTKC, whole), model(clips_BTKC), rtol=0, atol=1e-5)


def test_every_part_is_seen(name: str, layout: KeypointLayout) -> None:
    model = build(name, layout).eval()
    clips_BTKC = batch(layout)
    logits = model(clips_BTKC)
    for part in layout.parts.values():
        changed = clips_BTKC.clone()
        changed[:, :, list(part)] += 0.5
        assert ((model(changed) - logits).abs() > 1e-5).any(1).all()


def test_model_computes_in_bf16(name: str, layout: KeypointLayout) -> None:
    model = build(name, layout, dropout=0.0)
    expected = model(batch(layout)).detach()
    logits = model.bfloat16()(batch(layout).bfloat16(), LENGTHS * 0 + NUM_FRAMES)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float().detach(), expected, rtol=0, atol=0.1)
    logits.float().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_weights_come_back(name: str) -> None:
    layout = LAYOUTS["kinect_20x3"]
    model = build(name, layout).eval()
    other = build(name, layout)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(batch(layout)), model(batch(layout)))


def test_shorter_clips_than_the_most_frames(name: str) -> None:
    layout = LAYOUTS["kinect_20x3"]
    assert build(name, layout)(batch(layout, num_frames=4)).shape == (3, NUM_SIGNS)


# -- sizes ------------------------------------------------------------------------------------------------------------


def transformer_parameters(layout: KeypointLayout, num_signs: int, num_frames: int, size: ModelSize) -> int:
    """Counted by hand: linear maps with their biases, two numbers a LayerNorm and unit."""
    width = size.width
    block = 2 * (2 * width + 4 * width * (width + 1)) + 2 * width + (width + 1) * 4 * width + (4 * width + 1) * width
    embedding = sum((len(part) * layout.num_features + 1) * width for part in layout.parts.values())
    places = (len(layout.parts) + num_frames) * width
    head = 2 * width + (width + 1) + (width + 1) * num_signs
    return embedding + places + size.num_layers * block + head


@pytest.mark.parametrize(("size", "about"), [("t_2_2", 0.076e6), ("s_4_6", 1.7e6), ("m_4_6", 6.6e6)])
def test_transformer_has_the_parameters_of_its_size(size: str, about: float) -> None:
    layout = LAYOUTS["karsl_184x4"]
    model = MODELS["st_transformer"](ModelSpec(list(layout.parts.values()), 4, 502, 50, ModelSize.parse(size), 0.0))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert num_parameters == transformer_parameters(layout, 502, 50, ModelSize.parse(size))
    assert num_parameters == pytest.approx(about, rel=0.1)


def test_size_of_a_model() -> None:
    assert ModelSize.parse("s_4_6") == (32, 4, 6)
    assert ModelSize.parse("s_4_6").width == 128
    assert [ModelSize.parse(f"{letter}_1_1").head_size for letter in "tsml"] == [16, 32, 64, 128]
    assert ModelSize.parse("l_16_24") == (128, 16, 24)


@pytest.mark.parametrize(
    "text", ["", "s", "s_4", "s_4_6_1", "x_4_6", "S_4_6", "s_0_6", "s_4_0", "s-4-6", "s_4_6 ", "s_04_6", "s_4_100"]
)
def test_size_of_another_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected HEAD_HEADS_LAYERS such as s_4_6: head size t, s, m or l"):
        ModelSize.parse(text)


def test_autocast_leaves_an_lstm_to_its_own_precision() -> None:
    """On a GPU it would compute in float16, of which it tells nobody; on a CPU in bfloat16."""
    (layout,) = (layout for name, layout in LAYOUTS.items() if name.startswith("kinect"))
    model = build("bilstm", layout).eval()
    seen = []
    model.lstm.register_forward_hook(lambda module, inputs, outputs: seen.append((inputs[0].dtype, outputs[0].dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        model(batch(layout))
    assert seen == [(torch.float32, torch.float32)]
