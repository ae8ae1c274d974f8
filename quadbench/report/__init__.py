"""Report: RunResult -> one HTML file, and its tables as text, CSV, Markdown, LaTeX, HTML and for pandas."""
