"""PyTorch: load, train, compress, and hand over as a program.

Importing this package does not import torch; its modules do. For people with their own training loop::

    from edgekit.frameworks.pytorch.quantize import prepare, calibrate, freeze_observers, convert
    from edgekit.frameworks.pytorch.capture import export_program
"""
