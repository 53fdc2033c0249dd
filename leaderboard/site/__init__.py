"""The site: static pages with the tables, plots and comparisons of all entries."""
