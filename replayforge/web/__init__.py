"""HTTP in, HTML and JSON out; knows engine and domain, nothing below."""
