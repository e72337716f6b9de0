"""Clip stores to measure with: synthetic, made once a machine."""

from collections.abc import Callable
from pathlib import Path

from ds_trainer.tasks.sign.store import STORE_VERSION, is_store
from ds_trainer.tasks.sign.store_writer import write_store
from ds_trainer.tasks.sign.synthetic import VERSION, SyntheticSettings, synthetic_source

STORES_DIR = Path(__file__).parents[1] / "data" / "stores"


def synthetic_store(num_clips: int, say: Callable[[str], None], **settings: int | str) -> Path:
    """The store of so many clips, of 30 to 60 frames in KArSL's layout unless `settings` say something else."""
    chosen = SyntheticSettings.model_validate({"num_clips": num_clips, **settings})
    versions = f"{STORE_VERSION}.{VERSION}"
    name = "-".join(["bench", versions, str(num_clips), *(f"{key}_{value}" for key, value in settings.items())])
    store = STORES_DIR / name
    if not is_store(store):
        say(f"making {store}: {num_clips} clips")
        write_store(store, synthetic_source(chosen))
    return store


def read_once(store: Path) -> None:
    """Bring a store into the page cache, so that nobody waits for the disk in another's place."""
    with (store / "frames.npy").open("rb") as file:
        while file.read(2**24):
            pass
