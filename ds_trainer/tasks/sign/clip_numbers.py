"""The data sets of the sign task: which clips of a store are in a split."""

import numpy as np
from torch.utils.data import Dataset


class ClipNumbers(Dataset[int]):
    """The numbers, in the store, of a split's clips: all that is fetched one by one. `prepare` reads whole batches."""

    def __init__(self, clips: np.ndarray, clip_ids: np.ndarray):
        self.clips = clips
        self.clip_ids = clip_ids

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, place: int) -> int:
        return int(self.clips[place])

    def name_of(self, place: int) -> str:
        """The clip's name in its source, for a report of what went wrong with it."""
        return str(self.clip_ids[self.clips[place]])
