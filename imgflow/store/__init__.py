"""Object stores: list, read and write bytes; name outputs; check that disks have room.

What the bytes mean is decided in `images` and `depth`; what is known of them is in `catalog`.
"""
