"""Each figure's PNG states where it holds images of the data, whose colours docs/_ext/dark.py leaves as they are."""


def _install() -> None:
    import json

    from IPython import get_ipython
    from IPython.core.pylabtools import retina_figure
    from matplotlib.figure import Figure

    def drawn(figure: Figure):
        pixels = [image for ax in figure.axes for image in ax.images if image.get_array().dtype == "uint8"]
        if pixels:
            figure.draw_without_rendering()  # an axes of a fixed aspect gets its place only now
        places = [image.get_window_extent().transformed(figure.transFigure.inverted()).extents for image in pixels]
        stated = {"Photographs": json.dumps([place.round(5).tolist() for place in places])}
        return retina_figure(figure, base64=True, bbox_inches=None, metadata=stated)

    get_ipython().display_formatter.formatters["image/png"].for_type(Figure, drawn)


_install()
del _install
