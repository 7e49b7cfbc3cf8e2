"""Person or not, from 96×96 colour images: MLPerf Tiny's MobileNetV1 0.25."""
