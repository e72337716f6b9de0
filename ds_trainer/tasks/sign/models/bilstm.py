"""A bidirectional LSTM over frames, pooled by attention: the baseline of the field.

Axes: B clips, T frames, K keypoints, C features of a keypoint, P body parts, D model width, S signs.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ds_trainer.tasks.sign.models.base import AttentionPooling, ModelSpec, PartEmbedding, SignModel, blanked, padding
from ds_trainer.tasks.sign.models.dropout import Dropout


class BiLSTM(SignModel):
    """The body parts of a frame as one vector, an LSTM in both directions, attention pooling, a linear map to signs."""

    def __init__(self, spec: ModelSpec):
        super().__init__(spec)
        width = spec.size.width
        self.embedding = PartEmbedding(spec)
        self.to_frame = nn.Sequential(nn.Linear(len(spec.parts) * width, width), nn.LayerNorm(width), nn.GELU())
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        # Not layers of one LSTM: the dropout between those is not repeatable on a GPU, and waits for it when seeded.
        self.lstms_above = nn.ModuleList(
            nn.LSTM(2 * width, width, batch_first=True, bidirectional=True) for _ in range(spec.size.num_layers - 1)
        )
        self.norm = nn.LayerNorm(2 * width)
        self.pooling = AttentionPooling(2 * width)
        self.dropout = Dropout(spec.dropout)
        self.to_logits = nn.Linear(2 * width, spec.num_signs)

    def forward(self, clips_BTKC: Tensor, num_frames_B: Tensor | None = None) -> Tensor:
        is_padding_BT = padding(num_frames_B, clips_BTKC.shape[1])
        tokens_BPTD = self.embedding(blanked(clips_BTKC, is_padding_BT))
        frames_BTD = self.dropout(self.to_frame(tokens_BPTD.transpose(1, 2).flatten(2)))
        states_BTD = self.norm(self._through_lstm(frames_BTD, num_frames_B))
        pooled_BD = self.pooling(states_BTD, is_padding_BT)
        logits_BS: Tensor = self.to_logits(self.dropout(pooled_BD))
        return logits_BS

    def _through_lstm(self, frames_BTD: Tensor, num_frames_B: Tensor | None) -> Tensor:
        device = frames_BTD.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            # On a GPU autocast takes float16 for an LSTM whatever it is set to, and that without a loss scale.
            with torch.autocast(device, enabled=False):
                return self._through_lstm(frames_BTD.to(next(self.lstm.parameters()).dtype), num_frames_B)
        states_BTD = _through(self.lstm, frames_BTD, num_frames_B)
        for lstm in self.lstms_above:
            states_BTD = _through(lstm, self.dropout(states_BTD), num_frames_B)
        return states_BTD


def _through(lstm: nn.Module, frames_BTD: Tensor, num_frames_B: Tensor | None) -> Tensor:
    states_BTD: Tensor
    if num_frames_B is None:
        states_BTD, _ = lstm(frames_BTD)
        return states_BTD
    # Packed, the backward direction begins at each clip's last real frame. The lengths are read on the CPU: a sync.
    packed = pack_padded_sequence(frames_BTD, num_frames_B.cpu(), batch_first=True, enforce_sorted=False)
    states_BTD, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=frames_BTD.shape[1])
    return states_BTD
