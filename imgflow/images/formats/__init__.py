"""From bytes to an opened photograph, or to the reason why they are none.

What happens to its pixels afterwards is in `imgflow.images`.
"""
