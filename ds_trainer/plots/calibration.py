"""How sure a classifier is, beside how often it is right."""

from matplotlib.figure import Figure

from ds_trainer.calibration import NUM_BINS, Calibration, reliability
from ds_trainer.plots.style import BLUE, GREY, PALE, new_figure, style_axes


def calibration_figure(calibration: Calibration, title: str) -> Figure:
    """Accuracy of answers by their confidence, above how many answers have it; on the diagonal both agree."""
    figure = new_figure(title, 5.5, 6.5)
    accuracy_axes, number_axes = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    bins = reliability(calibration.confidence_N, calibration.is_right_N)
    style_axes(
        accuracy_axes,
        f"calibration error {calibration.error_after:.3f} at temperature {calibration.temperature:.2f}, "
        f"{calibration.error_before:.3f} without",
        grid="y",
    )
    accuracy_axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    accuracy_axes.plot([bin_[0] for bin_ in bins], [bin_[1] for bin_ in bins], "o-", color=BLUE)
    accuracy_axes.set(ylabel="fraction that is right", ylim=(0, 1.02), xlim=(0, 1.02))
    style_axes(number_axes, f"{len(calibration.confidence_N)} answers", grid="y")
    number_axes.hist(calibration.confidence_N.numpy(), bins=NUM_BINS, range=(0, 1), color=BLUE, edgecolor=PALE)
    number_axes.set(xlabel="confidence", ylabel="answers")
    return figure
