"""Turn footage into keypoints: `.venv-video/bin/python launch/extract_keypoints.py VIDEOS --out clips`; `--help`."""

import sys

from ds_trainer.tasks.sign.extraction.command import main

if __name__ == "__main__":
    sys.exit(main())
