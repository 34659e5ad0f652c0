"""What runs leave: their results, statistics and curves, and the figures, tables and pages that show them."""
