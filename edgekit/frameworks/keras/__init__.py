"""Keras: load, train, compress, and hand over as a program; tf_keras, Keras 3, SavedModel and ``.tflite`` sources.

Importing this package does not import TensorFlow; its modules do.
"""
