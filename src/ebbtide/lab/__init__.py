"""The lab: a trained run in the browser, live from a server or as one page that needs none."""
