"""The sign task: clips from a store, a model of the registry, cross-entropy over the selected signs.

Axes: B clips, T frames, K keypoints, C features.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ds_trainer.classification import balanced_weights, classification_objective
from ds_trainer.errors import SettingsError
from ds_trainer.problems import nearest_name
from ds_trainer.progress import with_bar
from ds_trainer.randomness import Draw
from ds_trainer.task import Deployment, Skeleton, Task
from ds_trainer.tasks.sign.augmentation import Augmentation
from ds_trainer.tasks.sign.clip_numbers import ClipNumbers
from ds_trainer.tasks.sign.clips import evenly
from ds_trainer.tasks.sign.features import num_features
from ds_trainer.tasks.sign.frames import Frames
from ds_trainer.tasks.sign.handedness import Handedness
from ds_trainer.tasks.sign.known_clips import known_among, refuse_known_clips, store_of
from ds_trainer.tasks.sign.known_layouts import notices_of
from ds_trainer.tasks.sign.labels import numbers_among
from ds_trainer.tasks.sign.layout import KeypointLayout
from ds_trainer.tasks.sign.models import MODELS, ModelSpec
from ds_trainer.tasks.sign.models.ensemble import Ensemble, refuse_many, taught_by_themselves
from ds_trainer.tasks.sign.models.size import ModelSize
from ds_trainer.tasks.sign.on_device import compiled
from ds_trainer.tasks.sign.prepare import DEFAULT_DATA, resolve_store
from ds_trainer.tasks.sign.preprocessing import Preprocessing, Recogniser, padded
from ds_trainer.tasks.sign.sampling import REST_FRACTION, Sampling
from ds_trainer.tasks.sign.settings import SignSettings
from ds_trainer.tasks.sign.skeletons import moving_skeleton
from ds_trainer.tasks.sign.split_draws import Clips
from ds_trainer.tasks.sign.splits import SplitRule, make_splits
from ds_trainer.tasks.sign.store import ClipStore
from ds_trainer.tasks.sign.upright import head_side
from ds_trainer.text_file import CONFIGS_DIR
from ds_trainer.watch.whereabouts import stand_at

DEFAULT_RECIPE = CONFIGS_DIR / "recipes" / "fingerspelling.yaml"


def _noticed(items: Iterable[Any], total: int, label: str) -> Iterator[Any]:
    """Pass items on with a bar; while the first rank prepares clips, the others wait, and see that it moves on."""
    for item in with_bar(items, total, label):
        stand_at("preparing the clips")
        yield item


class SignTask(Task):
    """Recognise which sign a clip shows."""

    settings_type = SignSettings

    @classmethod
    def recipe_for(cls, flags: Mapping[str, str]) -> Path | None:
        """The embedded default data is small, and comes with settings that suit it."""
        is_default = flags.get("data", DEFAULT_DATA) == DEFAULT_DATA
        return DEFAULT_RECIPE if is_default else None

    def __init__(self, settings: Any):
        self.settings = settings
        self.store = ClipStore.open(
            resolve_store(settings.data, settings.labels, settings.stores_dir, settings.layout, _noticed)
        )
        splits = make_splits(
            self.store,
            SplitRule(
                split=settings.split,
                val_by=settings.val_by,
                val_fraction=settings.val_fraction,
                signers=settings.signers or None,
                signs_from=settings.selected_signs_from,
                signs_to=settings.selected_signs_to,
                seed=settings.seed,
            ),
        )
        self.train_set, self.val_set, self.test_set = (
            ClipNumbers(clips, self.store.clip_ids) for clips in (splits.train, splits.val, splits.test)
        )
        self.class_names = [self.store.sign_names[sign] for sign in splits.sign_of_class]
        self.sign_numbers = splits.sign_numbers
        hands = Handedness.of(self.store, splits.train)
        self._found = {
            "mirrors_left_handed": hands.tells_signers,
            "num_read": Sampling.read_for(np.diff(self.store.offsets)[splits.train], settings.num_frames),
            "rest_fraction": REST_FRACTION,
            "head_side": head_side(self.store, splits.train),
        }
        self.notices = [*notices_of(self.store.layout, self.store.frames), *splits.notices, *hands.notices]
        self.augmentation = Augmentation(
            **{field.name: getattr(settings, field.name) for field in fields(Augmentation)}
        )
        self.parts = self._chosen_parts()
        used = Preprocessing.of(self.description())
        in_training = {name: getattr(settings, name) for name in ("max_tempo_fraction", "max_cut_fraction")}
        self.preprocessing = replace(used, sampling=replace(used.sampling, **in_training))
        self._frames = Frames(self.store)
        self._first = torch.from_numpy(self.store.offsets[:-1])
        self._num_frames = torch.from_numpy(np.diff(self.store.offsets))
        class_of_sign = np.full(len(self.store.sign_names), -1)
        class_of_sign[splits.sign_of_class] = np.arange(len(splits.sign_of_class))
        self._class = torch.from_numpy(class_of_sign[self.store.sign])
        num_classes = len(self.class_names)
        weights_S = None
        if settings.class_weights == "balanced":
            weights_S = balanced_weights(self._class[torch.from_numpy(splits.train)], num_classes)
        self.objective = classification_objective(num_classes, settings.label_smoothing, weights_S)
        if settings.num_members > 1:
            self.objective = taught_by_themselves(self.objective)

    def prepare(self, items: Tensor, device: torch.device, draw: Draw | None) -> tuple[tuple[Tensor, ...], Tensor]:
        """Numbers of clips in the store, int64[B] -> ((clips float32[B, T, taken, features],), classes int64[B])."""
        frame_BF = self.preprocessing.sampling.frames(self._first[items], self._num_frames[items], draw)
        clips_BFKC = self._frames.read(frame_BF, device)
        if draw is None:
            clips_BTKC = self.preprocessing.of_sampled(clips_BFKC)
        else:
            is_compiled = self.settings.compile and device.type == "cuda"
            of_sampled = self._compiled if is_compiled else self.preprocessing.of_sampled
            masked = self.settings.feature_mask_fraction
            clips_BTKC = of_sampled(clips_BFKC, draw.on(device), self.augmentation, masked)
        return (clips_BTKC,), self._class[items].to(device, non_blocking=True)

    @functools.cached_property
    def _compiled(self) -> Callable[..., Tensor]:
        """A tenth of the kernels, whose launches are what a GPU waits for; a processor is slower so."""
        return compiled(self.preprocessing.of_sampled)

    def _chosen_parts(self) -> dict[str, tuple[int, ...]]:
        """The body parts that the model looks at."""
        layout = self.store.layout
        parts = layout.parts
        unknown = [part for part in self.settings.parts if part not in parts]
        if unknown:
            raise SettingsError([f"--parts: found {part!r}; {nearest_name(part, parts)}" for part in unknown])
        return {part: parts[part] for part in self.settings.parts or layout.signing_parts or parts}

    def build_model(self) -> nn.Module:
        return self.model_from(self.description())

    def label(self) -> str:
        settings = self.settings
        members = f"-{settings.num_members}_members" if settings.num_members > 1 else ""
        return f"signs_{len(self.class_names or ())}-{settings.model}-{settings.model_size}{members}"

    def description(self) -> dict[str, Any]:
        layout, given = self.store.layout, self.settings.depth_weight
        return {
            "model": self.settings.model,
            "model_size": self.settings.model_size,
            "num_members": self.settings.num_members,
            "dropout": self.settings.dropout,
            "num_frames": self.settings.num_frames,
            "motion_fraction": self.settings.motion_fraction,
            "parts": {part: list(keypoints) for part, keypoints in self.parts.items()},
            "layout": layout.to_dict(),
            **self._found,
            "depth_weight": layout.depth_weight if given is None else given,
            "features": list(self.settings.features),
            "sign_names": self.class_names,
            "sign_numbers": self.sign_numbers,
        }

    @classmethod
    def model_from(cls, description: Mapping[str, Any]) -> nn.Module:
        preprocessing = Preprocessing.of(description)
        spec = ModelSpec(
            parts=preprocessing.parts,
            num_features=num_features(preprocessing.layout, description["features"]),
            num_signs=len(description["sign_names"]),
            num_frames=description["num_frames"],
            size=ModelSize.parse(description["model_size"]),
            dropout=description["dropout"],
        )
        kind, num_members = MODELS[description["model"]], refuse_many(description["num_members"])
        return kind(spec) if num_members == 1 else Ensemble(kind(spec) for _ in range(num_members))

    @classmethod
    def deployment(cls, model: nn.Module, description: Mapping[str, Any]) -> Deployment:
        layout = KeypointLayout.from_dict(description["layout"])
        generator = torch.Generator().manual_seed(0)
        clips_BNKC = 0.1 + torch.rand(2, 40, layout.num_keypoints, layout.num_features, generator=generator)
        return Deployment(
            module=Recogniser(Preprocessing.of(description), model).eval(),
            inputs=(clips_BNKC, torch.tensor([40, 23])),
            names=("clips", "num_frames"),
            dynamic_axes=({0: "clips", 1: "frames"}, {0: "clips"}),
            about=description,
        )

    @classmethod
    def as_trained(cls, checkpoint: Mapping[str, Any]) -> Self | None:
        """Also where the data has changed since, or is gone, as long as the clip store of that time is here."""
        fingerprint, former = checkpoint.get("data_fingerprint"), super().as_trained(checkpoint)
        if fingerprint is None or (former is not None and former.fingerprint() == fingerprint):
            return former
        prepared = store_of(fingerprint, Path(checkpoint["settings"].get("stores_dir", "")))
        settings = {**checkpoint["settings"], "data": str(prepared), "labels": None}
        return None if prepared is None else super().as_trained({**checkpoint, "settings": settings})

    def check_pretrained(self, checkpoint: Mapping[str, Any]) -> list[str]:
        former = SignTask.as_trained(checkpoint) if checkpoint["task"] == self.settings.task else None
        if former is not None:
            return refuse_known_clips(self, former)
        return ["the clips of --pretrained are not here: whether it knows test clips, or their signers, is not checked"]

    def check_scored(self, dataset: Dataset[Any], checkpoints: Sequence[Mapping[str, Any]]) -> list[str]:
        own = self.settings.task
        formers = [SignTask.as_trained(each) if each["task"] == own else None for each in checkpoints]
        return known_among(self, dataset, formers)

    def number_as_in(self, description: Mapping[str, Any]) -> None:
        self.preprocessing = Preprocessing.of(description)
        self._found = {name: description.get(name, 0) for name in self._found}  # earlier ones tell no side
        names, own_names = description["sign_names"], self.class_names or []
        if own_names == names:
            return
        number_of = torch.tensor(numbers_among(names, own_names))
        self._class = torch.where(self._class < 0, -1, number_of[self._class.clamp(min=0)])
        self.class_names, self.sign_numbers = list(names), list(description["sign_numbers"])
        self.objective = classification_objective(len(names), self.settings.label_smoothing)

    def recorded(self, limit: int) -> tuple[Tensor, ...]:
        held_out = self.clips_of(self.test_set)
        return padded(map(self.store.clip_frames, evenly(held_out, limit).tolist()))

    def clips_of(self, dataset: Dataset[Any] | None) -> Clips:
        """The clips of one of this task's data sets, by their numbers in the store."""
        assert isinstance(dataset, ClipNumbers), "one of this task's"
        return dataset.clips

    def groups(self, dataset: Dataset[Any]) -> Sequence[str] | None:
        return [self.store.signer_names[signer] for signer in self.store.signer[self.clips_of(dataset)]]

    def skeletons(self, dataset: Dataset[Any], places: Sequence[int]) -> list[Skeleton]:
        clips = self.clips_of(dataset)[list(places)].tolist()
        return [moving_skeleton(self.store.clip_frames(clip), self.store.layout) for clip in clips]

    def fingerprint(self) -> str:
        return self.store.fingerprint
