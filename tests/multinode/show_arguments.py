"""Prints the arguments that arrived, for test_arguments.py."""

import json
import sys

print("arrived", json.dumps([argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")]))
