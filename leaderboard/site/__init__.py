"""The site: static pages with tables, plots and comparisons of all entries."""
