"""Speed as ratios: each suite runs its cases in turns (A B C, A B C, …), so that a busy machine slows all alike.

``python -m benchmarks --help`` says how to run them; ``RESULTS.md`` holds what the last run printed. Nothing here is a
test, and no test asserts a time.
"""
