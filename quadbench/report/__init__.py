"""HTML reports of a benchmark run, and its tables as text, CSV, Markdown, LaTeX, HTML and pandas data frames."""
