"""report.html: one page of a run that opens anywhere, without a network."""
