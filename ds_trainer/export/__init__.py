"""From a checkpoint or a resume point to a file that others can use, compared with what it was made from."""
