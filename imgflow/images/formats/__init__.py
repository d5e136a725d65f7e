"""From bytes to an opened photograph, or to the reason why it is rejected.

What happens to its pixels afterwards is in `imgflow.images`.
"""
