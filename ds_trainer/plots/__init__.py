"""What is drawn of a run and of its best model, all in one style."""
