"""One module a figure: `data` gives the tidy table, `draw` the figure."""
