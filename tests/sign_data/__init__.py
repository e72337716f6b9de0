"""The sign task's data: layouts, readers, the clip store, labels and splits."""
