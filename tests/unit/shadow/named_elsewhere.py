"""A name that a handler of a test takes from another module."""

NAME = "elsewhere"
