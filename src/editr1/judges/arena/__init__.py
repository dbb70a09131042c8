"""People compare the edits of two runs on a local web page."""
