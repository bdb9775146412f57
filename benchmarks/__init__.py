"""Measuring: accuracy, speed, memory and cost of models on a corpus. Installed as `bioner_edge.benchmarks`.

launch     what was asked for becomes a run; the main path goes on in plan and suite
plan       models × corpora × formats × constraints: the cells
suite      each cell read, scored, and timed in turn with the others, each in a process of its own
results    what lies on disk of a run
measuring  what such a process measures
scoring    what is right in predictions
comparing  whether cells differ
cost       money, electricity and carbon, from inputs in cost.toml
report     tables, Markdown, HTML, plots
studies    scripts behind single decisions, in a checkout alone
"""
