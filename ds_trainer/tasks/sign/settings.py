"""What can be chosen about the signs, the clips and the model."""

from pathlib import Path
from typing import Literal

from pydantic import field_validator, model_validator

from ds_trainer.problems import nearest_name
from ds_trainer.settings import NameList, TaskSettings, setting
from ds_trainer.tasks.sign.features import FEATURES
from ds_trainer.tasks.sign.models import MODELS
from ds_trainer.tasks.sign.models.ensemble import MOST_MEMBERS
from ds_trainer.tasks.sign.models.size import ModelSize
from ds_trainer.tasks.sign.split_draws import RULES, SIGNER_PREFIX

_DATA, _MODEL, _AUGMENTATION = "data", "model", "augmentation (training only)"
_SIZES = "widths of the shoulders, and of a hand that is seen from its wrist in sizes of that hand"


class SignSettings(TaskSettings):
    """Flags of the sign task.

    Where the data lies and what is said of it makes no other run: the fingerprint tells whether the clips, their names
    and their layout are others.
    """

    data: str = setting(
        "default",
        _DATA,
        "a clip store, a file or folder of clips, or default: 26 fingerspelled letters in 16 languages, with the "
        "settings of ds_configs/recipes/fingerspelling.yaml in place of the defaults shown here, unless --config names "
        "others",
        is_identity=False,
    )
    labels: Path | None = setting(
        None, _DATA, "names of the signs: a text file of one a line, or the KArSL labels file", is_identity=False
    )
    layout: Path | None = setting(
        None,
        _DATA,
        "what the keypoints are, as a YAML file says (docs/data.md); without it what their number says",
        is_identity=False,
    )
    signers: NameList = setting((), _DATA, "the only signers to use, separated by commas; none named: all")
    selected_signs_from: int | None = setting(None, _DATA, "number of the first sign to use, from 1", ge=1)
    selected_signs_to: int | None = setting(None, _DATA, "number of the last sign to use, itself included", ge=1)
    split: str = setting(
        "auto",
        _DATA,
        "what is held out for the test: own (as the data comes), signer:NAME[,NAME] (these signers), random; "
        "auto: own, or else the last signer; all: everything, for launch/evaluate.py on other data",
    )
    val_by: Literal["clip", "signer"] = setting(
        "clip",
        _DATA,
        "whether validation takes clips of any training signer or all clips of some, who then do not train: of few "
        "signers that costs more than it tells",
    )
    val_fraction: float = setting(0.15, _DATA, "fraction of the training clips, or signers, that validate", gt=0, lt=1)
    stores_dir: Path = setting(Path("data/stores"), _DATA, "where prepared clips are kept", is_identity=False)

    model: str = setting("st_transformer", _MODEL, f"one of {', '.join(MODELS)}")
    model_size: str = setting(
        "s_4_6", _MODEL, "HEAD_HEADS_LAYERS: head size t, s, m or l (16, 32, 64, 128), attention heads, layers"
    )
    num_members: int = setting(
        1,
        _MODEL,
        "models of that kind, trained side by side, whose probabilities are averaged: each costs as much as one",
        ge=1,
        le=MOST_MEMBERS,
    )
    dropout: float = setting(0.3, _MODEL, "fraction of activations left out in training", ge=0, lt=1)
    label_smoothing: float = setting(
        0.2, _MODEL, "fraction of each target spread over all signs, in training and validation loss", ge=0, lt=1
    )
    class_weights: Literal["none", "balanced"] = setting(
        "none", _MODEL, "balanced: in the training loss each sign counts alike, however many clips it has"
    )
    parts: NameList = setting(
        (), _MODEL, "body parts that the model looks at, by their names in the layout; none named: all but lower_body"
    )
    num_frames: int = setting(50, _MODEL, "frames to which each clip is resampled", ge=2, le=10_000)
    motion_fraction: float = setting(
        0.8,
        _MODEL,
        "how far time is counted in movement instead of frames, so that waiting takes none; at 0 a clip shorter than "
        "num_frames stands still in the frames that it repeats, and its velocity comes in jerks",
        ge=0,
        le=1,
    )

    depth_weight: float | None = setting(
        None,
        _MODEL,
        "factor on the z coordinate; without it 0.3 where MediaPipe guessed it from one camera, else 1",
        ge=0,
        le=1,
    )

    features: NameList = setting(
        ("place", "presence", "velocity", "bone"),
        _MODEL,
        f"what the model sees of each keypoint, of {', '.join(FEATURES)}",
        min_length=1,
    )

    mirror_fraction: float = setting(
        0.0,
        _AUGMENTATION,
        "fraction of clips mirrored, left and right swapped; those of left-handed signers are mirrored anyway",
        ge=0,
        le=1,
    )
    max_rotation_degrees: float = setting(
        10.0, _AUGMENTATION, "largest rotation in the image plane, degrees", ge=0, le=180
    )
    max_scale_fraction: float = setting(0.15, _AUGMENTATION, "largest growth or shrinking, as a fraction", ge=0, lt=1)
    max_shift: float = setting(0.1, _AUGMENTATION, "largest shift along each axis, in widths of the shoulders", ge=0)

    max_turn_degrees: float = setting(
        15.0, _AUGMENTATION, "largest turn of the body about the vertical and the horizontal axis, degrees", ge=0, le=90
    )
    max_stretch_fraction: float = setting(
        0.1, _AUGMENTATION, "largest growth or shrinking along each axis by itself, as a fraction", ge=0, lt=1
    )
    max_limb_fraction: float = setting(
        0.2, _AUGMENTATION, "largest growth or shrinking of each bone by itself, as a fraction", ge=0, lt=1
    )
    max_displacement: float = setting(
        0.0, _AUGMENTATION, f"largest shift of each keypoint by itself, in {_SIZES}", ge=0
    )
    noise: float = setting(0.006, _AUGMENTATION, f"standard deviation of noise on each coordinate, in {_SIZES}", ge=0)
    max_tempo_fraction: float = setting(
        0.5,
        _AUGMENTATION,
        "how far the tempo rises and falls within a clip, 0.5 for half to one and a half",
        ge=0,
        lt=1,
    )
    max_cut_fraction: float = setting(
        0.1,
        _AUGMENTATION,
        "how much earlier or later a clip begins and ends, as a fraction of its length",
        ge=0,
        lt=0.5,
    )
    keypoint_mask_fraction: float = setting(0.0, _AUGMENTATION, "keypoints that are missing in a clip", ge=0, lt=1)
    feature_mask_fraction: float = setting(
        0.3, _AUGMENTATION, "place and each of --features, by itself, that a clip does not show", ge=0, lt=1
    )
    part_mask_fraction: float = setting(0.0, _AUGMENTATION, "body parts that are missing in a clip", ge=0, lt=1)
    max_frame_mask_fraction: float = setting(
        0.0, _AUGMENTATION, "longest stretch of frames that is blank, as a fraction of the clip", ge=0, lt=1
    )

    @field_validator("features")
    @classmethod
    def _features_are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in FEATURES:
                raise ValueError(nearest_name(name, FEATURES))
        return names

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, name: str) -> str:
        if name not in MODELS:
            raise ValueError(nearest_name(name, MODELS))
        return name

    @field_validator("model_size")
    @classmethod
    def _size_has_its_form(cls, text: str) -> str:
        ModelSize.parse(text)
        return text

    @field_validator("split")
    @classmethod
    def _split_is_known(cls, rule: str) -> str:
        if rule not in RULES and not rule.startswith(SIGNER_PREFIX):
            raise ValueError(f"expected {', '.join(RULES)} or signer:NAME[,NAME]")
        return rule

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> "SignSettings":
        first, last = self.selected_signs_from or 1, self.selected_signs_to
        if last is not None and first > last:
            raise ValueError(f"selected_signs_from {first} lies behind selected_signs_to {last}; swap them")
        return self
