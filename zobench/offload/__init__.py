"""Weights in main memory: the layers of a model are uploaded one after another, once a step."""
