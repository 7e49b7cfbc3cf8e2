"""Twelve keywords from 49×10 MFCCs: MLPerf Tiny's DS-CNN."""
