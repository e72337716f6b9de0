"""The sign task's model side: sampling, normalisation, augmentation, models, and the task as a whole."""
