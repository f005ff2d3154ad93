"""What is done to single words: weight, fraction of cross-attention, local blend."""

from components.widgets.base import Widget


class Edits(Widget):
    """`{"prompts": [{"title": str, "words": [str], "fresh": [word]}], "weights": [[prompt, word, factor]],
    "fractions": [[prompt, word, fraction]], "blend": [[prompt, word]]}`.

    A click on a word opens its sliders; fresh words have no counterpart whose attention they could take over.
    Event `edited`: `{"weights", "fractions", "blend", "number"}`, the lists as above and a number that grows, so
    that the newer of two can be told: listen with `trigger_mode="multiple"`, for "always_last" would bring the
    first event's data once more.
    """
