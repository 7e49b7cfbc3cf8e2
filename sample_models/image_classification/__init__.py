"""Ten classes from 32×32 colour images: MLPerf Tiny's ResNet8."""
