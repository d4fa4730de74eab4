"""Methods side by side: a grid of runs, statistics over them, tables, pictures, a page."""
