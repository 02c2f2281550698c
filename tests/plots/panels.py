"""Panels of a comparison's points, and what a figure shows of them."""

from ebbtide.plots import style
from ebbtide.plots.points import Panel

ACROSS = [1, 2, 5]  # columns of data


def panels_of(c):
    return [Panel("Real data", c.real, style.REAL)] + [
        Panel(s.method, s.samples, style.colour(s.method), s.label) for s in c.samplings
    ]


def limits_of(c):
    return style.as_limits(c.limits, c.real.shape[1])


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in [*ax.texts, ax.title, ax._left_title]] + [
        text.get_text() for text in figure.texts
    ]


def same_frame(axes):
    return len({(ax.get_xlim(), ax.get_ylim()) for ax in axes}) == 1


def colours(ax):
    lines = [line.get_color() for line in ax.lines]
    return {*lines, *(style.mpl.colors.to_hex(patch.get_facecolor()).upper() for patch in ax.patches)}
