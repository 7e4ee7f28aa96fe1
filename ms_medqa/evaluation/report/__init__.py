"""The report of an evaluation: from figures to tables, sentences, charts and a page."""
