"""How figures come out of the book's cells; a reader's own Jupyter is left as it is."""

c = get_config()
c.IPKernelApp.log_level = "ERROR"  # a kernel warns of each port that it opens on this machine
c.IPKernelApp.matplotlib = "inline"
c.InlineBackend.figure_formats = {"retina"}
c.InlineBackend.print_figure_kwargs = {"bbox_inches": None}
c.HistoryManager.enabled = False
