"""Models of the sign task. To add one: a file here whose class is a `SignModel`, and a line in `MODELS`."""

from ds_trainer.tasks.sign.models.base import ModelSpec, SignModel
from ds_trainer.tasks.sign.models.bilstm import BiLSTM
from ds_trainer.tasks.sign.models.conv_transformer import ConvTransformer
from ds_trainer.tasks.sign.models.st_transformer import SpatioTemporalTransformer

__all__ = ["MODELS", "ModelSpec", "SignModel"]

MODELS: dict[str, type[SignModel]] = {
    "st_transformer": SpatioTemporalTransformer,
    "bilstm": BiLSTM,
    "conv_transformer": ConvTransformer,
}
