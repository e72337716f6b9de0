"""The rows of issue 5's table. Each has a function that measures it."""

from benchmarks.rows.gpu import measure_gpu
from benchmarks.rows.growth import measure_growth
from benchmarks.rows.launch import measure_launch
from benchmarks.rows.memory import measure_memory
from benchmarks.rows.operations import measure_operations
from benchmarks.rows.preparation import measure_preparation
from benchmarks.rows.steps import measure_overhead, measure_step, measure_two_ranks

ROWS = {
    "operations": measure_operations,
    "preparation": measure_preparation,
    "step": measure_step,
    "two_ranks": measure_two_ranks,
    "overhead": measure_overhead,
    "memory": measure_memory,
    "launch": measure_launch,
    "growth": measure_growth,
    "gpu": measure_gpu,
}
"""By the name that `--only` takes."""

QUICK_ROWS = ("operations", "preparation", "step", "overhead", "launch")
"""What `--quick` measures if no row is named."""
