"""Benchmarks of instruction-based editing: their items, questions, parsing rules and tables."""
