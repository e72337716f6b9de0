"""An ensemble answers with the average of its members, and each of these learns as if it were alone."""

import copy

import pytest
import torch

from ds_trainer.classification import classification_objective
from ds_trainer.tasks.sign.models import MODELS, ModelSpec
from ds_trainer.tasks.sign.models.ensemble import Ensemble, taught_by_themselves
from ds_trainer.tasks.sign.models.size import ModelSize

from .examples import LAYOUTS, clips

NUM_SIGNS, NUM_FRAMES, NUM_MEMBERS = 5, 12, 3
LAYOUT = LAYOUTS["kinect_20x3"]
TARGETS = torch.tensor([0, 1, 2])


@pytest.fixture(params=list(MODELS))
def ensemble(request: pytest.FixtureRequest) -> Ensemble:
    torch.manual_seed(0)
    parts = list(LAYOUT.parts.values())
    spec = ModelSpec(parts, LAYOUT.num_features, NUM_SIGNS, NUM_FRAMES, ModelSize.parse("t_1_1"), dropout=0.0)
    return Ensemble(MODELS[request.param](spec) for _ in range(NUM_MEMBERS))


def test_its_answer_is_the_mean_of_probabilities(ensemble: Ensemble) -> None:
    seen, lengths = clips(LAYOUT, 3, NUM_FRAMES), torch.tensor([12, 7, 1])
    probabilities = [member(seen, lengths).softmax(1) for member in ensemble.eval().members]
    assert not torch.allclose(probabilities[0], probabilities[1], atol=1e-3), "members begin with weights of their own"
    torch.testing.assert_close(ensemble(seen, lengths).softmax(1), torch.stack(probabilities).mean(0))


def test_a_sign_that_all_members_rule_out_has_a_logit_all_the_same(ensemble: Ensemble) -> None:
    with torch.no_grad():
        for member in ensemble.eval().members:
            for name, parameter in member.named_parameters():
                if name.startswith("to_logits"):
                    parameter.mul_(1e4)
    assert ensemble(clips(LAYOUT, 3, NUM_FRAMES)).isfinite().all()


@pytest.mark.parametrize("weights", [None, torch.arange(1.0, 1.0 + NUM_SIGNS)], ids=["alike", "by class"])
def test_members_learn_as_if_alone(ensemble: Ensemble, weights: torch.Tensor | None) -> None:
    seen, alone = clips(LAYOUT, 3, NUM_FRAMES), copy.deepcopy(ensemble)
    objective = classification_objective(NUM_SIGNS, 0.2, weights)
    losses = taught_by_themselves(objective).minimised(ensemble.train()(seen), TARGETS)
    assert losses.shape == TARGETS.shape
    losses.mean().backward()
    for member in alone.members:
        (objective.minimised(member(seen), TARGETS).mean() / NUM_MEMBERS).backward()
    for (name, found), expected in zip(ensemble.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=lambda told, name=name: f"{name}: {told}")


def test_its_loss_in_validation_is_that_of_its_answer(ensemble: Ensemble) -> None:
    answer = ensemble.eval()(clips(LAYOUT, 3, NUM_FRAMES))
    losses = taught_by_themselves(classification_objective(NUM_SIGNS)).loss(answer, TARGETS)
    torch.testing.assert_close(losses, torch.nn.functional.cross_entropy(answer, TARGETS, reduction="none"))
