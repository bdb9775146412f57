"""Benchmarks: accuracy, speed, memory and cost of models on a corpus. Installed as `bioner_edge.benchmarks`.

launch     turns a request into a run; continues in plan and suite
plan       the cells: models × corpora × formats × constraints
suite      reads, scores and times each cell, in processes of their own
results    the files of a run
measuring  what such a process measures
scoring    matching, scores and intervals of predictions
comparing  paired comparison of cells
cost       money, electricity and carbon, from the inputs in cost.toml
report     tables, Markdown, HTML, plots
studies    scripts behind single decisions, only in a checkout
"""
