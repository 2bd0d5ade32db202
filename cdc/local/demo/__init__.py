"""`cdc local demo`: five acts on real components, from an empty machine to a proof.

Reading order: shop (the tables and the transactions on them), load (who writes them), gauges (what
the live table shows), screen (how it looks), programs (the commands it runs), acts (the plot),
compare (the proof, which imports nothing of this package).
"""
