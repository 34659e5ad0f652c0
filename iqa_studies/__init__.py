"""Studies: many runs, and the tables, figures and tests that a paper makes of their results."""
