"""The forward process: what a clean picture becomes on its way to noise."""

from components.widgets.base import Widget


class Noising(Widget):
    """`{"url": str, "frames": int, "times": [float], "alpha": [float], "sigma": [float],
    "log_snr": [float | None], "note": str}`: frame k, at time `times[k]`, is at `url + k + ".png"`.

    Frame 0 is clean data and the last one noise; each list has one entry per frame. A log-SNR of None is
    infinite. A frame is fetched when it is looked at, and the browser keeps it.
    """
