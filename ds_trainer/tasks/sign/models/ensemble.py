"""Several models in one: each is taught by itself, and their probabilities are averaged.

They differ in their first weights and in dropout, and so in what they get wrong: a deep ensemble (Lakshminarayanan et
al. 2017, arXiv 1612.01474) that is trained, saved and exported like any one model.

Axes: B clips, T frames, K keypoints, C features of a keypoint, M members, S signs.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ds_trainer.objective import Objective
from ds_trainer.problems import shown
from ds_trainer.tasks.sign.models.base import SignModel

MOST_MEMBERS = 100

_LEAST_PROBABILITY = 1e-30


def refuse_many(num_members: int) -> int:
    """The number of members.

    Raises:
        ValueError: they are more than settings allow: a description from elsewhere may name any number.
    """
    if not 1 <= num_members <= MOST_MEMBERS:
        raise ValueError(f"num_members: found {shown(num_members)}, expected 1 to {MOST_MEMBERS}")
    return num_members


class Ensemble(nn.Module):
    """Clips -> the logits of each member in training, else those of the average.

    Args:
        members: models of the same signs.
    """

    def __init__(self, members: Iterable[SignModel]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, clips_BTKC: Tensor, num_frames_B: Tensor | None = None) -> Tensor:
        """float[B, M, S] in training, float32[B, S] else; see `SignModel`."""
        logits_BMS = torch.stack([member(clips_BTKC, num_frames_B) for member in self.members], dim=1)
        if self.training:
            return logits_BMS
        mean_BS = logits_BMS.float().softmax(-1).mean(1)
        return mean_BS.clamp(min=_LEAST_PROBABILITY).log()


def taught_by_themselves(objective: Objective) -> Objective:
    """The objective of an ensemble: in training the mean of its members' losses.

    The loss of their average would be lower if they shared the work, and no member could then do it alone.
    """

    def training_loss(logits_BMS: Tensor, targets_B: Tensor) -> Tensor:
        return torch.stack([objective.minimised(logits_BS, targets_B) for logits_BS in logits_BMS.unbind(1)]).mean(0)

    return replace(objective, training_loss=training_loss)
