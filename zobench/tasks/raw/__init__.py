"""One published form of a data set per file: a format that is read, or rows that are reshaped."""
