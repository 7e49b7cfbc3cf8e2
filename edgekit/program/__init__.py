"""Programs: the framework-free hand-over between frameworks and formats.

Importing this package does not import torch; its modules do.
"""
