"""Results of runs as one page, and as Markdown: pure functions of `evaluation.results.RunResults`."""
