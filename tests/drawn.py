"""Records to draw curves of, and what can be read back from a figure."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text


def records_of(num_epochs: int, **changed: Any) -> list[dict[str, Any]]:
    """Two steps an epoch, 10 apart; the validation loss is lowest in the third epoch, or the last."""
    records: list[dict[str, Any]] = []
    for epoch in range(num_epochs):
        for step in (20 * epoch + 10, 20 * epoch + 20):
            records.append({"kind": "step", "epoch": epoch, "step": step, "loss": 3 / step, "learning_rate": 1e-3})
            records[-1] |= {"grad_norm": 0.5 if step % 20 else 2.0}
        losses = {"train_loss": 2.0 / (epoch + 1), "val_loss": 1.0 + abs(epoch - 2) / 10}
        accuracies = {"top1": 0.1 + epoch / 100, "top5": 0.6, "macro_f1": 0.2}
        epoch_record = {
            "kind": "epoch",
            "epoch": epoch,
            "step": 20 * epoch + 20,
            "learning_rate": 1e-3,
            "grad_norm": 1.0,
        }
        epoch_record["is_best"] = epoch <= 2
        records.append({key: changed.get(key, value) for key, value in (epoch_record | losses | accuracies).items()})
    return records


def shown_texts(figure: Figure) -> list[Text]:
    """What can be read in `figure`; matplotlib also keeps labels of ticks beyond the limits, which it does not draw."""
    figure.draw_without_rendering()
    axes_with_limits = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    beyond = {
        tick.label1
        for axis in axes_with_limits
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text not in beyond]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other, and texts that leave the figure."""
    texts = shown_texts(figure)
    boxes = [Text.get_window_extent(text) for text in texts]  # of an annotation, without its arrow
    inside = figure.bbox.padded(1)
    lost = [(text.get_text(), "the edge") for text, box in zip(texts, boxes, strict=True) if not _within(box, inside)]
    pairs = ((one, other) for one in range(len(texts)) for other in range(one))
    return lost + [
        (texts[one].get_text(), texts[other].get_text())
        for one, other in pairs
        if boxes[one].padded(-1).overlaps(boxes[other].padded(-1))
    ]


def _within(box: Any, around: Any) -> bool:
    return bool(box.x0 >= around.x0 and box.y0 >= around.y0 and box.x1 <= around.x1 and box.y1 <= around.y1)
