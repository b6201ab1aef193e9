"""The colours of the classes, the same in the report and in what predict draws."""

from stages.data.tables import IGNORE

Colour = tuple[int, int, int]

_BRIGHT: tuple[Colour, ...] = (
    (255, 176, 0),
    (236, 0, 140),
    (0, 190, 235),
    (120, 200, 30),
    (150, 90, 255),
    (255, 90, 40),
    (0, 150, 120),
    (250, 235, 60),
)
COLOURS: tuple[Colour, ...] = (*_BRIGHT, *(tuple(channel * 3 // 5 for channel in colour) for colour in _BRIGHT))
"""RGB of class ids 0 to 15: eight colours, then the same eight darker."""
IGNORE_COLOUR: Colour = (150, 150, 150)


def colour_of_class(class_id: int) -> Colour:
    """RGB, 0 to 255, of a class id of at least 0; from the seventeenth class on the colours repeat."""
    return COLOURS[int(class_id) % len(COLOURS)]


def colour_of_label(label: int) -> Colour:
    """RGB, 0 to 255, of a label of a label map: class id + 1, or 255 = ignored."""
    return IGNORE_COLOUR if label == IGNORE else colour_of_class(int(label) - 1)


def hex_of_label(label: int) -> str:
    """`colour_of_label` as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of_label(label))
