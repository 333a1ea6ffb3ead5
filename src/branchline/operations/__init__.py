"""The verbs: what people and pipelines do, written against ports only."""
