"""From executed notebooks to one typeset report: merge, Markdown, pandoc, Typst, PDF."""
